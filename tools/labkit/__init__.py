"""The lab: network namespaces with a NAT gateway in the middle, real kernels at both ends, real traffic."""
