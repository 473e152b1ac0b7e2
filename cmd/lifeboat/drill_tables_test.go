package main

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// A backup notes its tables in all databases while others come and go, and a
// drill finds them so, whatever was changed afterwards.
func TestDrillComparesTables(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.Exec(t, variety)
	s.Exec(t, "create database other")
	other, err := pgx.Connect(context.Background(), strings.Replace(s.ConnString(), "dbname='postgres'", "dbname='other'", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.Background())
	const inOther = `create schema "odd . name"; create table "odd . name"."Ta'ble" as select i, repeat('x', i) from generate_series(1, 3000) i;
		create table parts (i int) partition by range (i); create table part partition of parts for values from (0) to (10); insert into parts values (1);
		create unlogged table unlogged as select 1 x; create materialized view seen as select * from parts; create table empty ()`
	if _, err := other.Exec(context.Background(), inOther); err != nil {
		t.Fatal(err)
	}
	s.run(t, "backup", "--fingerprints")
	// What comes later must not count.
	if _, err := other.Exec(context.Background(), `delete from "odd . name"."Ta'ble" where i % 2 = 0; drop table parts cascade`); err != nil {
		t.Fatal(err)
	}
	s.flush(t)
	d := s.drilled(t, exitOK)
	c := checkOf(t, d, "tables as at the backup")
	if c.Verdict != evidence.Passed || !c.Required || !strings.HasPrefix(c.Detail, "7 tables") || strings.Contains(c.Detail, "could not be read") {
		t.Errorf("%+v", c)
	}
	if !d.RPO.Zero || checkOf(t, d, "recovery end").Verdict != evidence.Passed {
		t.Errorf("after the tables were compared recovery went on to %+v", d.RPO)
	}
}
