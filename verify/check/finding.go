package check

import (
	"cmp"
	"slices"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// Code names a kind of damage. Codes are an interface: scripts go by them.
type Code string

// The codes of findings.
const (
	ManifestUntrusted Code = "manifest-untrusted" // not signed by a trusted key for its place
	ManifestDamaged   Code = "manifest-damaged"   // does not open, or says what cannot be
	InfoDamaged       Code = "info-damaged"       // the info object does not open, or says otherwise than the manifest
	NotesDamaged      Code = "notes-damaged"      // the fingerprints of tables that a backup noted
	PackMissing       Code = "pack-missing"
	PackSize          Code = "pack-size"
	PackDamaged       Code = "pack-damaged"    // its bytes are not those of its name
	FrameDamaged      Code = "frame-damaged"   // a frame does not open
	WALMissing        Code = "wal-missing"     // between the start and the stop of a backup
	WALGap            Code = "wal-gap"         // after the stop, where the policy wants it
	WALDamaged        Code = "wal-damaged"     // a segment, a slice or another file of the archive
	HistoryDamaged    Code = "history-damaged" // a timeline history file is missing or does not open
	BlocksDamaged     Code = "blocks-damaged"  // a block summary
	PinDamaged        Code = "pin-damaged"
	SystemDamaged     Code = "system-damaged"
	GoneBack          Code = "gone-back"    // this host has seen it, and it is not there any more
	LockMissing       Code = "lock-missing" // objects that nothing keeps from being removed, where something should
	LockShort         Code = "lock-short"   // objects that are kept for a shorter time, or less strictly, than they should
)

// Finding is one thing that is wrong.
type Finding struct {
	Code    Code   `json:"code"`
	Object  string `json:"object"`
	Problem string `json:"problem"`

	// What it spoils. Backups are labels; of Files at most MaxFiles are named.
	Backups   []string `json:"backups"`
	Files     []string `json:"files,omitempty"`
	FileCount int64    `json:"file_count"`
	FilesMore bool     `json:"files_more,omitempty"` // there may be more than were counted
	Points    string   `json:"points"`               // which points in time cannot be restored, in words

	// Of a finding about many objects, of which Object is the first: at most MaxFiles.
	Objects     []string `json:"objects,omitempty"`
	ObjectCount int      `json:"object_count,omitempty"`

	Do string `json:"do"` // what to do next

	from, to postgres.LSN      // of WAL: the positions that cannot be reached from before them
	counted  map[[16]byte]bool // files, by shortName: many backups name the same ones
}

// MaxFiles is how many files a finding names.
const MaxFiles = 20

// advice is what to do about each kind of finding.
func advice(c Code) string {
	switch c {
	case ManifestUntrusted:
		return "find out who wrote it: somebody else than the cluster's hosts can write to the repository; do not restore it, and take a new backup"
	case ManifestDamaged, PackMissing, PackSize, PackDamaged, FrameDamaged, WALMissing:
		return "get the object back from a copy or an older version of it in the store; else take a new backup now, and restore from another one"
	case InfoDamaged:
		return "the backup restores; remove the object, and it is read from the manifest"
	case NotesDamaged:
		return "the backup restores; a drill cannot compare its tables"
	case WALGap, WALDamaged:
		return "get the object back from a copy, an older version of it or a server that still has it; else take a new backup now"
	case BlocksDamaged:
		return "nothing: the next backup does without it, and expire removes it in time"
	case HistoryDamaged:
		return "push it again from a server that has it in pg_wal: lifeboat wal push"
	case GoneBack:
		return "find out who removed it, and get it back from a copy or an older version in the store; if you did that yourself, or put an older copy in its place: lifeboat verify --accept-rollback"
	case LockMissing, LockShort:
		return "find out how they were written: by a host without s3.object_lock_mode in its configuration, before the bucket had the rule, or by somebody else; give those that should stay a retention (aws s3api put-object-retention), and set s3.object_lock_mode and s3.object_lock_days on every host, or the bucket's default retention"
	case PinDamaged:
		return "pin the backup again; until then it is kept"
	case SystemDamaged:
		return "it is written again by \"lifeboat init\" or the next backup, once it is removed"
	}
	return "look at the object"
}

// Gone is the finding of something that this host has seen and that is missing now.
func Gone(object, reason string) *Finding {
	return &Finding{Code: GoneBack, Object: object, Problem: reason, Backups: []string{}, Points: "those that only what was removed could reach", Do: advice(GoneBack)}
}

func (f *Finding) spoil(label string) {
	if i, found := slices.BinarySearch(f.Backups, label); !found {
		f.Backups = slices.Insert(f.Backups, i, label)
	}
}

// file counts a file that is spoilt, and says whether it is another one.
func (f *Finding) file(path string) bool {
	name := shortName(path)
	if f.counted[name] {
		return false
	}
	if f.counted == nil {
		f.counted = map[[16]byte]bool{}
	}
	f.counted[name] = true
	f.FileCount++
	if len(f.Files) < MaxFiles {
		f.Files = append(f.Files, path)
	}
	return true
}

func sortFindings(all []*Finding) {
	slices.SortFunc(all, func(a, b *Finding) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Code, b.Code))
	})
}
