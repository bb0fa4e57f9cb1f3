"""What services tell each other: the CloudEvents envelope, the versioned event models, the topology as data."""
