// Package evidence holds what a drill leaves behind: one signed document, in a
// form that an auditor can check in ten years with any JSON and Ed25519
// library, and without a network.
//
// A document is canonical JSON (RFC 8785), so there is one sequence of bytes
// for it; the signature covers these bytes. Each document names the one before
// it by key and hash, so a drill that was taken out of the row shows. The
// schema is in docs/evidence.md. Documents lie in the repository under drills/
// and are never overwritten; they are not sealed, because they hold no data of
// tables and must be readable by those who hold no key (docs/adr/007).
package evidence
