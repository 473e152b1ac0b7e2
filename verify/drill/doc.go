// Package drill rehearses a restore: it restores a backup into staging, starts
// the server fenced off from everything, proves the data, measures what was
// achieved, cleans up, and leaves signed evidence.
//
// Nothing passes by default. A step that could not be carried out is unknown,
// and one that showed that a restore would not have worked is failed; the
// difference is between "this host could not tell" and "this backup would not
// have saved us". What is reported was seen on the restored server or measured
// on the way there.
//
// The archive counts as it was when it was listed, at the start. The primary
// is asked right after that for its clock and its position: had it died at that
// moment, the restore would have been this one.
package drill
