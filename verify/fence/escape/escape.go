// Package escape tries to get out of a fence. A probe inside takes every road
// that is known to a canary outside: a process, files, sockets, shared memory.
// The canaries are real, and what reaches them is seen on them. The same probe
// runs once without the fence: a road that leads nowhere there either proves
// nothing, and is unknown.
package escape

import "errors"

// Argument is the first argument of a process that has to call Enter.
const Argument = "escape-probe"

// Outcome is what became of an attempt.
type Outcome string

// The outcomes.
const (
	Blocked Outcome = "blocked" // it failed inside, and reached its canary without the fence
	Reached Outcome = "reached"
	Unknown Outcome = "unknown" // it failed also without the fence
)

// OwnFile is the attempt to read a file that only the account of who tries may read.
const OwnFile = "read a file that is the drill's alone"

// Attempt is one road out.
type Attempt struct {
	What    string  `json:"what"`
	Outcome Outcome `json:"outcome"`
	Error   string  `json:"error,omitempty"`   // the system's, inside
	Outside string  `json:"outside,omitempty"` // the system's, without the fence
}

// ErrNotRun means that the probe could not be run behind the fence.
var ErrNotRun = errors.New("the probe did not run")
