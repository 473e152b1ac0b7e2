// Package repo is the on-disk format of a Lifeboat repository: what the
// objects are called, how they are sealed and signed, and how they are read
// back without trusting the place they were kept in. FORMAT.md beside this
// file specifies every byte; this package is its one implementation.
//
// There are two shapes of object. An envelope (marker aside: manifests, WAL,
// reports) is one readable header line, signed, and a sealed body. A pack is
// a sealed run of zstd frames named by its own SHA-256; the signed manifest
// that refers to it is what makes it genuine.
//
// Writing needs recipients (public) and the cluster's signing key. Reading
// data needs an identity (secret) and the public signing key as trust anchor.
// So a database host can write backups that it cannot read.
//
// Everything that comes from the store is hostile until its signature or its
// signed hash holds: no method returns plain bytes before that.
package repo
