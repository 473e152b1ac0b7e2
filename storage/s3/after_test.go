package s3_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/storage/s3/s3test"
)

func TestListAfter(t *testing.T) {
	store := open(t, options(s3test.Start(t, s3test.Options{})))
	ctx := context.Background()
	var keys []string
	for i := range 12 {
		keys = append(keys, fmt.Sprintf("wal/%02d", i))
	}
	for _, key := range append([]string{"a", "wam"}, keys...) {
		if err := store.Create(ctx, key, strings.NewReader(key)); err != nil {
			t.Fatal(err)
		}
	}
	for after, want := range map[string][]string{"": keys, "wal/04": keys[5:], "wal/045": keys[5:], "wal/11": nil, "wal/": keys, "a": keys, "x": nil} {
		var got []string
		for info, err := range store.ListAfter(ctx, "wal/", after) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, info.Key)
		}
		if !slices.Equal(got, want) {
			t.Errorf("after %q: %v, want %v", after, got, want)
		}
	}
}
