"""What tools/bench and tools/nic-bench share."""
