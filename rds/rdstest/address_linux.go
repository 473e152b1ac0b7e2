package rdstest

// otherAddress is where a server listens in the other zone: all of 127.0.0.0/8 is
// the loopback interface on Linux.
const otherAddress = "127.0.0.2"
