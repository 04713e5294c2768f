"""Batches on Faust: transport, table, checkpoint, fence. The only place that touches Faust's private names."""
