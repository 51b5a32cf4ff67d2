"""The recorder in other people's training loops. Thin: each hands over objects, batches and step boundaries."""
