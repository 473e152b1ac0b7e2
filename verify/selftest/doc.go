// Package selftest shows that a drill catches what is broken. It breaks a
// healthy scratch repository in one way after another, runs a drill on each,
// and looks at whether the drill failed for that very reason. A drill of the
// healthy repository comes first: without it, failing would prove nothing.
//
// Nothing is broken for real: each drill sees the repository through an overlay
// in which objects are missing or have other bytes.
package selftest
