package rdstest

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
)

// snapshot is one, or a copy; its data lies in a directory.
type snapshot struct {
	region, id, source, resource string
	cluster                      bool
	kind                         string // manual or automated
	status                       string
	percent                      int32 // below 0: not told
	created, original            time.Time
	engine, version              string
	storage                      int32
	encrypted                    bool
	kms, copyOf                  string
	tags                         []types.Tag
	dir                          string
	retention                    int32 // of what it was taken of: a restore takes it over
}

func word(cluster bool) string {
	if cluster {
		return "cluster-snapshot"
	}
	return "snapshot"
}

func (s *snapshot) arn() string { return arn(s.region, word(s.cluster), s.id) }
func (s *snapshot) key() string { return key(s.region, word(s.cluster), s.id) }

func (s *snapshot) asInstance() *types.DBSnapshot {
	out := &types.DBSnapshot{DBSnapshotIdentifier: &s.id, DBSnapshotArn: ptr(s.arn()), DBInstanceIdentifier: &s.source, DbiResourceId: &s.resource, SnapshotType: &s.kind, Status: &s.status,
		SnapshotCreateTime: &s.created, OriginalSnapshotCreateTime: &s.original, Engine: &s.engine, EngineVersion: &s.version, AllocatedStorage: &s.storage, Encrypted: &s.encrypted, TagList: s.tags}
	if s.percent >= 0 {
		out.PercentProgress = &s.percent
	}
	if s.kms != "" {
		out.KmsKeyId = &s.kms
	}
	if s.copyOf != "" {
		out.SourceDBSnapshotIdentifier = &s.copyOf
	}
	return out
}

func (s *snapshot) asCluster() *types.DBClusterSnapshot {
	out := &types.DBClusterSnapshot{DBClusterSnapshotIdentifier: &s.id, DBClusterSnapshotArn: ptr(s.arn()), DBClusterIdentifier: &s.source, DbClusterResourceId: &s.resource, SnapshotType: &s.kind,
		Status: &s.status, SnapshotCreateTime: &s.created, Engine: &s.engine, EngineVersion: &s.version, AllocatedStorage: &s.storage, StorageEncrypted: &s.encrypted, TagList: s.tags}
	if s.percent >= 0 {
		out.PercentProgress = &s.percent
	}
	if s.kms != "" {
		out.KmsKeyId = &s.kms
	}
	if s.copyOf != "" {
		out.SourceDBClusterSnapshotArn = &s.copyOf
	}
	return out
}

func (f *Fake) listSnapshots(region string, cluster bool, source, id *string) []*snapshot {
	var all []*snapshot
	for _, s := range f.snapshots {
		if s.region == region && s.cluster == cluster && (source == nil || s.source == *source) && (id == nil || s.id == lastPart(*id)) {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *snapshot) int { return cmp.Compare(a.id, b.id) })
	return all
}

func describeDBSnapshots(f *Fake, region string, in *sdk.DescribeDBSnapshotsInput) (*sdk.DescribeDBSnapshotsOutput, *Fault) {
	all := f.listSnapshots(region, false, in.DBInstanceIdentifier, in.DBSnapshotIdentifier)
	if in.DBSnapshotIdentifier != nil && len(all) == 0 {
		return nil, fault("DBSnapshotNotFound", "DBSnapshot %s not found.", *in.DBSnapshotIdentifier)
	}
	some, next := page(f, all, in.Marker)
	out := &sdk.DescribeDBSnapshotsOutput{Marker: next, DBSnapshots: []types.DBSnapshot{}}
	for _, s := range some {
		out.DBSnapshots = append(out.DBSnapshots, *s.asInstance())
	}
	return out, nil
}

func describeDBClusterSnapshots(f *Fake, region string, in *sdk.DescribeDBClusterSnapshotsInput) (*sdk.DescribeDBClusterSnapshotsOutput, *Fault) {
	all := f.listSnapshots(region, true, in.DBClusterIdentifier, in.DBClusterSnapshotIdentifier)
	if in.DBClusterSnapshotIdentifier != nil && len(all) == 0 {
		return nil, fault("DBClusterSnapshotNotFoundFault", "DBClusterSnapshot %s not found.", *in.DBClusterSnapshotIdentifier)
	}
	some, next := page(f, all, in.Marker)
	out := &sdk.DescribeDBClusterSnapshotsOutput{Marker: next, DBClusterSnapshots: []types.DBClusterSnapshot{}}
	for _, s := range some {
		out.DBClusterSnapshots = append(out.DBClusterSnapshots, *s.asCluster())
	}
	return out, nil
}

// codes are those of instances or of clusters.
func codes(cluster bool, instance, ofCluster string) string {
	if cluster {
		return ofCluster
	}
	return instance
}

func (f *Fake) mayHold(region string) *Fault {
	n := 0
	for _, s := range f.snapshots {
		if s.region == region && s.kind == "manual" {
			n++
		}
	}
	if n >= f.quota {
		return fault("SnapshotQuotaExceeded", "Cannot create more than %d manual snapshots", f.quota)
	}
	return nil
}

func (f *Fake) takeSnapshot(region string, d *database, id string, tags []types.Tag, cluster bool) (*snapshot, *Fault) {
	if f.snapshots[key(region, word(cluster), id)] != nil {
		return nil, fault(codes(cluster, "DBSnapshotAlreadyExists", "DBClusterSnapshotAlreadyExistsFault"), "Cannot create the snapshot because a snapshot with the identifier %s already exists.", id)
	}
	if d.status != "available" {
		return nil, fault(codes(cluster, "InvalidDBInstanceState", "InvalidDBClusterStateFault"), "Cannot create a snapshot because the database %s is not currently in the available state.", d.id)
	}
	if err := f.mayHold(region); err != nil {
		return nil, err
	}
	s := &snapshot{region: region, id: id, source: d.id, resource: d.resource, cluster: cluster, kind: "manual", status: "creating", created: time.Now(), original: time.Now(), engine: d.engine, version: d.version,
		storage: d.storage, encrypted: d.encrypted, kms: d.kms, tags: tags, dir: filepath.Join(f.Home, "snap-"+randomHex(8)), retention: d.retention}
	if cluster {
		s.storage = 1
	}
	f.snapshots[s.key()] = s
	d.status = "backing-up"
	f.later(f.o.Snapshot, func() error { return d.pg.copyTo(s.dir) }, func(err error) {
		d.status, s.status, s.percent = "available", "available", 100
		if err != nil {
			s.status = "failed"
		}
	})
	return s, nil
}

func createDBSnapshot(f *Fake, region string, in *sdk.CreateDBSnapshotInput) (*sdk.CreateDBSnapshotOutput, *Fault) {
	d := f.instances[key(region, str(in.DBInstanceIdentifier))]
	if d == nil {
		return nil, fault("DBInstanceNotFound", "DBInstance %s not found.", str(in.DBInstanceIdentifier))
	}
	s, err := f.takeSnapshot(region, d, str(in.DBSnapshotIdentifier), in.Tags, false)
	if err != nil {
		return nil, err
	}
	return &sdk.CreateDBSnapshotOutput{DBSnapshot: s.asInstance()}, nil
}

func createDBClusterSnapshot(f *Fake, region string, in *sdk.CreateDBClusterSnapshotInput) (*sdk.CreateDBClusterSnapshotOutput, *Fault) {
	d := f.clusters[key(region, str(in.DBClusterIdentifier))]
	if d == nil {
		return nil, fault("DBClusterNotFoundFault", "DBCluster %s not found.", str(in.DBClusterIdentifier))
	}
	s, err := f.takeSnapshot(region, d, str(in.DBClusterSnapshotIdentifier), in.Tags, true)
	if err != nil {
		return nil, err
	}
	return &sdk.CreateDBClusterSnapshotOutput{DBClusterSnapshot: s.asCluster()}, nil
}

// copySnapshot copies into region. More than so many at once wait in line, and
// tell no progress.
func (f *Fake) copySnapshot(region, from, id, kms string, tags []types.Tag, cluster bool) (*snapshot, *Fault) {
	parts := strings.Split(from, ":")
	at := region
	if len(parts) == 7 {
		at = parts[3]
	}
	of := f.snapshots[key(at, word(cluster), lastPart(from))]
	switch {
	case of == nil:
		return nil, fault(codes(cluster, "DBSnapshotNotFound", "DBClusterSnapshotNotFoundFault"), "The source snapshot %s was not found.", from)
	case of.status != "available":
		return nil, fault(codes(cluster, "InvalidDBSnapshotState", "InvalidDBClusterSnapshotStateFault"), "The source snapshot %s is not available.", from)
	case f.snapshots[key(region, word(cluster), id)] != nil:
		return nil, fault(codes(cluster, "DBSnapshotAlreadyExists", "DBClusterSnapshotAlreadyExistsFault"), "A snapshot with the identifier %s already exists.", id)
	case of.encrypted && at != region && kms == "":
		return nil, fault("InvalidParameterCombination", "You must specify a KMS key in the destination region to copy an encrypted snapshot.")
	case kms != "" && !strings.HasPrefix(kms, "arn:aws:kms:"+region+":"):
		return nil, fault("KMSKeyNotAccessibleFault", "The specified KMS key %s does not exist, is not enabled or you do not have permissions to access it.", kms)
	}
	if err := f.mayHold(region); err != nil {
		return nil, err
	}
	s := &snapshot{}
	*s = *of
	s.region, s.id, s.copyOf, s.tags, s.status, s.created, s.percent = region, id, of.arn(), tags, "creating", time.Now(), -1
	s.kms, s.encrypted, s.dir = kms, of.encrypted || kms != "", filepath.Join(f.Home, "snap-"+randomHex(8))
	f.snapshots[s.key()] = s
	f.later(0, func() error { f.waitTurn(s); return nil }, func(error) {
		s.percent = 0
		f.later(f.o.Copy, func() error { return copyDir(s.dir, of.dir) }, func(err error) {
			s.status, s.percent = "available", 100
			if f.spoil > 0 {
				f.spoil--
				s.status = "failed"
			}
			if err != nil {
				s.status = "failed"
			}
		})
	})
	return s, nil
}

// waitTurn waits until fewer than the limit are under way.
func (f *Fake) waitTurn(own *snapshot) {
	for range 2000 {
		f.mu.Lock()
		n := 0
		for _, s := range f.snapshots {
			if s != own && s.region == own.region && s.copyOf != "" && s.status == "creating" && s.percent >= 0 {
				n++
			}
		}
		f.mu.Unlock()
		if n < f.o.MostCopies {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func copyDBSnapshot(f *Fake, region string, in *sdk.CopyDBSnapshotInput) (*sdk.CopyDBSnapshotOutput, *Fault) {
	s, err := f.copySnapshot(region, str(in.SourceDBSnapshotIdentifier), str(in.TargetDBSnapshotIdentifier), str(in.KmsKeyId), in.Tags, false)
	if err != nil {
		return nil, err
	}
	return &sdk.CopyDBSnapshotOutput{DBSnapshot: s.asInstance()}, nil
}

func copyDBClusterSnapshot(f *Fake, region string, in *sdk.CopyDBClusterSnapshotInput) (*sdk.CopyDBClusterSnapshotOutput, *Fault) {
	s, err := f.copySnapshot(region, str(in.SourceDBClusterSnapshotIdentifier), str(in.TargetDBClusterSnapshotIdentifier), str(in.KmsKeyId), in.Tags, true)
	if err != nil {
		return nil, err
	}
	return &sdk.CopyDBClusterSnapshotOutput{DBClusterSnapshot: s.asCluster()}, nil
}

func (f *Fake) dropSnapshot(region, id string, cluster bool) (*snapshot, *Fault) {
	k := key(region, word(cluster), id)
	s := f.snapshots[k]
	if s == nil {
		return nil, fault(codes(cluster, "DBSnapshotNotFound", "DBClusterSnapshotNotFoundFault"), "Snapshot %s not found.", id)
	}
	if s.status != "available" && s.status != "failed" || s.kind != "manual" {
		return nil, fault(codes(cluster, "InvalidDBSnapshotState", "InvalidDBClusterSnapshotStateFault"), "The snapshot %s is %s and cannot be deleted.", id, s.status)
	}
	delete(f.snapshots, k)
	return s, nil
}

func deleteDBSnapshot(f *Fake, region string, in *sdk.DeleteDBSnapshotInput) (*sdk.DeleteDBSnapshotOutput, *Fault) {
	s, err := f.dropSnapshot(region, str(in.DBSnapshotIdentifier), false)
	if err != nil {
		return nil, err
	}
	return &sdk.DeleteDBSnapshotOutput{DBSnapshot: s.asInstance()}, nil
}

func deleteDBClusterSnapshot(f *Fake, region string, in *sdk.DeleteDBClusterSnapshotInput) (*sdk.DeleteDBClusterSnapshotOutput, *Fault) {
	s, err := f.dropSnapshot(region, str(in.DBClusterSnapshotIdentifier), true)
	if err != nil {
		return nil, err
	}
	return &sdk.DeleteDBClusterSnapshotOutput{DBClusterSnapshot: s.asCluster()}, nil
}

func addTagsToResource(f *Fake, region string, in *sdk.AddTagsToResourceInput) (*sdk.AddTagsToResourceOutput, *Fault) {
	for _, s := range f.snapshots {
		if s.arn() == str(in.ResourceName) && s.region == region {
			s.tags = append(s.tags, in.Tags...)
			return &sdk.AddTagsToResourceOutput{}, nil
		}
	}
	return nil, fault("DBSnapshotNotFound", "%s not found.", str(in.ResourceName))
}

// SnapshotNames lists the snapshots of a region.
func (f *Fake) SnapshotNames(region string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, s := range f.snapshots {
		if s.region == region {
			out = append(out, s.id)
		}
	}
	slices.Sort(out)
	return out
}

// ChangeSnapshot has a snapshot or copy be otherwise than it was made.
func (f *Fake) ChangeSnapshot(t testing.TB, region, id string, change func(status, kind, source, engine *string, tags *[]types.Tag)) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.snapshots {
		if s.region == region && s.id == id {
			change(&s.status, &s.kind, &s.source, &s.engine, &s.tags)
			return
		}
	}
	t.Fatalf("there is no snapshot %s in %s", id, region)
}
