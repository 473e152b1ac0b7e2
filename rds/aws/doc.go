// Package aws is rds.API on Amazon's SDK, with its retries, and what else of
// Amazon is needed to log in to a database: secrets and tokens.
package aws
