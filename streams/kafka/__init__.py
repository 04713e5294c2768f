"""What speaks Kafka's protocol, and the only place that knows aiokafka."""
