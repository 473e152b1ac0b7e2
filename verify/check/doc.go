// Package check looks at a whole repository and says what is wrong with it,
// what that spoils, and what to do.
//
// One listing shows what there is. Every manifest is opened, its packs are
// compared with the listing, and the WAL is followed from each backup. With
// Read the objects themselves are read: their hashes are compared, and with an
// identity every frame is opened.
//
// A store that fails is an error and no finding: nothing is called missing that
// the store did not say is not there.
package check
