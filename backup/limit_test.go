package backup

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// What no manifest can hold is refused when it is listed, not when all was copied.
func TestTooMuchIsRefusedAtTheStart(t *testing.T) {
	t.Parallel()
	tr := &tree{control: source{path: controlPath, size: 8192, mode: 0o600}}
	for i := range 1<<18 - 1 {
		tr.directories = append(tr.directories, repo.FileEntry{Type: repo.Dir, Path: strconv.Itoa(i) + "/x", Mode: 0o700})
	}
	if err := tr.check(); err != nil {
		t.Fatal(err)
	}
	tr.directories = append(tr.directories, repo.FileEntry{Type: repo.Dir, Path: "one/more", Mode: 0o700})
	err := tr.check()
	if _, told := errors.AsType[*TooManyFilesError](err); !told || !strings.Contains(err.Error(), "cannot be backed up: more than 262144 directories") {
		t.Errorf("error %v", err)
	}
}
