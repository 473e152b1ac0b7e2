//go:build !linux

package rdstest

// otherAddress is the same where the loopback interface has one address only.
const otherAddress = "127.0.0.1"
