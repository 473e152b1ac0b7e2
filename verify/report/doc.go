// Package report turns the evidence of drills into what people and machines
// read: text for a terminal, a page, JUnit, metrics for Prometheus, tables, and
// a pack for auditors. docs/report.md says what each figure means.
//
// Everything here is a function of its arguments. Evidence is somebody else's
// text: names and details may hold anything, so each form neutralises what
// would be more than text in it (control characters, markup, formulas).
package report
