//go:build !linux

package drill

// endOrphans does nothing: here no process can be known for a crashed drill's but by
// what its server wrote, and that is an attacker's word.
func endOrphans(string) error { return nil }
