// Package expire removes what a policy does not keep: backups, the packs that
// no backup refers to any more, the WAL that no backup needs, and what crashes
// left behind.
//
// NewPlan decides and does no I/O; Run gathers what the plan needs, and carries
// it out in an order that leaves every kept backup restorable wherever it is
// stopped: a manifest goes first, and with it the backup; packs and WAL go once
// nothing names them.
//
// These hold always, and tests hold the plan to them:
//
//   - The newest backup that is found restorable stays, on each line of
//     history. When none can be proven, nothing goes.
//   - Counting goes by time. Timelines that followed one another, systems as
//     well, are counted as one; timelines that were in use at the same time
//     are counted each for itself.
//   - WAL from the start to the stop of a kept backup stays; so does all WAL
//     from the start of the oldest backup that the window needs.
//   - A backup that runs somewhere loses nothing: neither its own objects nor
//     the packs that it has adopted.
//   - What cannot be read is not removed, and neither is anything that it
//     might need.
package expire
