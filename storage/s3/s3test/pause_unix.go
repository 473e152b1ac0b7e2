//go:build unix

package s3test

import "syscall"

// Pause stops the server's process without ending it: connections stay, and
// nothing answers. Resume lets it go on.
func (s *Server) Pause() { _ = s.process.Process.Signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume() { _ = s.process.Process.Signal(syscall.SIGCONT) }
