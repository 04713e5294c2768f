"""The rules: pure functions of settings, state and input. No Faust, no Kafka, no clock, no I/O."""
