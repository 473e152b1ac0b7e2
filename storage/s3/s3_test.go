package s3_test

import (
	"context"
	"testing"

	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/s3"
	"github.com/lifeboat-dr/lifeboat/storage/s3/s3test"
	"github.com/lifeboat-dr/lifeboat/storage/storetest/suite"
)

// options reach the server's bucket.
func options(server *s3test.Server) s3.Options {
	return s3.Options{Bucket: server.Bucket, Endpoint: server.Endpoint, CAFile: server.CAFile, PathStyle: true, Prefix: "some/where"}
}

func open(t *testing.T, o s3.Options) *s3.Store {
	t.Helper()
	store, err := s3.New(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestContract(t *testing.T) {
	for name, server := range map[string]s3test.Options{"TLS": {TLS: true}, "plain": {}} {
		t.Run(name, func(t *testing.T) {
			o := options(s3test.Start(t, server))
			suite.Run(t, func(t *testing.T) storage.Store { return open(t, o) })
		})
	}
}
