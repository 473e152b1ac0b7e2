// Package rdstest is Amazon RDS for tests: an HTTP server that speaks its query
// protocol, with states that take time and the checks that Amazon makes, and a
// real PostgreSQL behind each endpoint. A snapshot is a real copy of the data
// directory, a restore starts a server on one, and a point in time is reached by
// replaying archived WAL; so what SQL says of a restored copy is true.
//
// Requests are decoded into, and answers encoded from, the types of Amazon's own
// Go SDK, which are generated from the public model of the API: a field that the
// model lacks can be neither read nor written here.
package rdstest
