package postgres_test

import (
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// A file of a server's may be a link to a secret: what is wrong with it is said
// without a word of it.
func TestDecodersQuoteNothing(t *testing.T) {
	const secret = "AGE-SECRET-KEY-1QQQ"
	for name, err := range map[string]error{
		"history": failed(postgres.ParseHistory(3, []byte("1\t0/100\tx\n"+secret+"\n"))), "switch": failed(postgres.ParseHistory(3, []byte("1\t"+secret+"\n"))),
		"start":      failed(postgres.ParseBackupLabel([]byte("START WAL LOCATION: " + secret + "\n"))),
		"checkpoint": failed(postgres.ParseBackupLabel([]byte("CHECKPOINT LOCATION: " + secret + "\n"))),
		"timeline":   failed(postgres.ParseBackupLabel([]byte("START TIMELINE: " + secret + "\n"))),
		"map":        failed(postgres.ParseTablespaceMap([]byte(secret + "\n"))), "version": failed(postgres.ParseVersionFile([]byte(secret))),
		"control": failed(postgres.ParseControlFile([]byte(secret))),
		"LSN":     new(postgres.LSN).UnmarshalText([]byte(secret)), "system": new(postgres.SystemID).UnmarshalText([]byte(secret)),
	} {
		if err == nil || strings.Contains(err.Error(), "QQQ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func failed[T any](_ T, err error) error { return err }
