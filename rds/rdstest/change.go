package rdstest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
)

var handlers map[string]handler

func init() {
	handlers = map[string]handler{
		"DescribeDBInstances": on(describeDBInstances), "DescribeDBClusters": on(describeDBClusters), "DescribeEvents": on(describeEvents),
		"DescribeDBSnapshots": on(describeDBSnapshots), "DescribeDBClusterSnapshots": on(describeDBClusterSnapshots),
		"CreateDBSnapshot": on(createDBSnapshot), "CreateDBClusterSnapshot": on(createDBClusterSnapshot),
		"CopyDBSnapshot": on(copyDBSnapshot), "CopyDBClusterSnapshot": on(copyDBClusterSnapshot),
		"DeleteDBSnapshot": on(deleteDBSnapshot), "DeleteDBClusterSnapshot": on(deleteDBClusterSnapshot), "AddTagsToResource": on(addTagsToResource),
		"RestoreDBInstanceFromDBSnapshot": on(restoreFromSnapshot), "RestoreDBInstanceToPointInTime": on(restoreToTime),
		"RestoreDBClusterFromSnapshot": on(restoreClusterFromSnapshot), "RestoreDBClusterToPointInTime": on(restoreClusterToTime),
		"CreateDBInstance": on(createDBInstance), "DeleteDBInstance": on(deleteDBInstance), "DeleteDBCluster": on(deleteDBCluster),
		"RebootDBInstance": on(rebootDBInstance), "FailoverDBCluster": on(failoverDBCluster),
	}
}

// Without has a region lack a group: kind is subgrp, pg or cluster-pg.
func (f *Fake) Without(region, kind, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups[key(region, kind, name)] = true
}

// asked is what requests for a restore have in common.
type asked struct {
	id, class, subnets, group, clusterGroup, option string
	security                                        []string
	public, protected, multiAZ                      *bool
	retention                                       *int32
	tags                                            []types.Tag
}

// make makes the record of a restored database. What is not asked for is what
// Amazon takes by default, which is not what the source has.
func (f *Fake) make(region string, cluster bool, a asked) (*database, *Fault) {
	missing := func(kind, name string) bool { return name != "" && f.groups[key(region, kind, name)] }
	switch {
	case !cluster && f.instances[key(region, a.id)] != nil:
		return nil, fault("DBInstanceAlreadyExists", "DB instance already exists")
	case cluster && f.clusters[key(region, a.id)] != nil:
		return nil, fault("DBClusterAlreadyExistsFault", "DB Cluster already exists")
	case missing("subgrp", a.subnets):
		return nil, fault("DBSubnetGroupNotFoundFault", "DBSubnetGroup %s not found.", a.subnets)
	case missing("pg", a.group):
		return nil, fault("DBParameterGroupNotFound", "DBParameterGroup not found: %s", a.group)
	case missing("cluster-pg", a.clusterGroup):
		return nil, fault("DBClusterParameterGroupNotFound", "DBClusterParameterGroup not found: %s", a.clusterGroup)
	}
	d := &database{region: region, id: a.id, resource: "db-" + randomHex(8), cluster: cluster, status: "creating", created: time.Now(), class: a.class, subnets: a.subnets, group: a.group, option: a.option,
		security: a.security, public: isTrue(a.public), protected: isTrue(a.protected), multiAZ: isTrue(a.multiAZ), tags: a.tags, zones: [2]string{region + "c", region + "a"}}
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	if cluster {
		d.group = a.clusterGroup
	} else {
		def(&d.option, "default:postgres-15")
	}
	def(&d.subnets, "default")
	def(&d.group, "default.postgres15")
	if len(d.security) == 0 {
		d.security = []string{"sg-default"}
	}
	if a.retention != nil {
		d.retention = *a.retention
	}
	return d, nil
}

// bring starts the server of a restored instance, or makes the data of a restored
// cluster ready for one.
func (f *Fake) bring(d *database, prepare func(dir string) error) *Fault {
	dir := filepath.Join(f.Home, "data-"+d.resource)
	pg, err := f.newPostgres(dir, "127.0.0.1")
	if err != nil {
		return fault("InternalFailure", "%v", err)
	}
	d.pg = pg
	if d.cluster {
		f.clusters[key(d.region, d.id)] = d
	} else {
		f.instances[key(d.region, d.id)] = d
	}
	f.later(f.o.Create, func() error {
		if err := prepare(dir); err != nil || d.cluster {
			return err
		}
		return pg.start()
	}, func(err error) {
		switch {
		case err != nil:
			d.status = "failed"
		case !f.o.Hold:
			d.status = "available"
			f.dns.set(hostOf(d.region, d.id), "127.0.0.1")
		}
	})
	return nil
}

// like takes over what a restored database always has of its source.
func (d *database) like(engine, version string, storage int32, encrypted bool, kms string) {
	d.engine, d.version, d.storage, d.encrypted, d.kms = engine, version, storage, encrypted, kms
}

func (f *Fake) fromSnapshot(region string, cluster bool, id string, a asked) (*database, *Fault) {
	s := f.snapshots[key(region, word(cluster), lastPart(id))]
	if s == nil {
		return nil, fault(codes(cluster, "DBSnapshotNotFound", "DBClusterSnapshotNotFoundFault"), "Snapshot %s not found.", id)
	}
	if s.status != "available" {
		return nil, fault(codes(cluster, "InvalidDBSnapshotState", "InvalidDBClusterSnapshotStateFault"), "The snapshot %s is not available.", id)
	}
	d, err := f.make(region, cluster, a)
	if err != nil {
		return nil, err
	}
	d.like(s.engine, s.version, s.storage, s.encrypted, s.kms)
	if a.retention == nil {
		d.retention = s.retention
	}
	if d.class == "" {
		d.class = "db.r6g.large"
	}
	return d, f.bring(d, func(dir string) error { return copyDir(dir, s.dir) })
}

func (f *Fake) toTime(region string, cluster bool, source string, at *time.Time, latest *bool, a asked) (*database, *Fault) {
	all := f.instances
	if cluster {
		all = f.clusters
	}
	s := all[key(region, source)]
	switch {
	case s == nil:
		return nil, fault(codes(cluster, "DBInstanceNotFound", "DBClusterNotFoundFault"), "%s not found.", source)
	case at == nil && !isTrue(latest):
		return nil, fault("InvalidParameterCombination", "Must specify one of RestoreTime and UseLatestRestorableTime.")
	case at != nil && isTrue(latest):
		return nil, fault("InvalidParameterCombination", "Cannot specify both RestoreTime and UseLatestRestorableTime.")
	case s.restorable.IsZero():
		return nil, fault(codes(cluster, "PointInTimeRestoreNotEnabled", "InvalidParameterValue"), "Point in time restore is not enabled for %s.", source)
	case at != nil && at.After(s.restorable):
		return nil, fault("InvalidParameterValue", "The specified time %s is later than the latest restorable time %s.", at.UTC(), s.restorable.UTC())
	case at != nil && at.Before(s.created):
		return nil, fault("InvalidParameterValue", "The specified time is before the earliest restorable time.")
	}
	d, err := f.make(region, cluster, a)
	if err != nil {
		return nil, err
	}
	d.like(s.engine, s.version, s.storage, s.encrypted, s.kms)
	if a.retention == nil {
		d.retention = s.retention
	}
	if d.class == "" {
		d.class = s.class
	}
	setting, value := "recovery_target_name", s.point
	if at != nil {
		setting, value = "recovery_target_time", at.UTC().Format("2006-01-02 15:04:05.999999+00")
	}
	return d, f.bring(d, func(dir string) error {
		if err := copyDir(dir, s.base); err != nil {
			return err
		}
		return recoverTo(dir, s.archive, setting, value)
	})
}

func restoreFromSnapshot(f *Fake, region string, in *sdk.RestoreDBInstanceFromDBSnapshotInput) (*sdk.RestoreDBInstanceFromDBSnapshotOutput, *Fault) {
	d, err := f.fromSnapshot(region, false, str(in.DBSnapshotIdentifier), asked{id: str(in.DBInstanceIdentifier), class: str(in.DBInstanceClass), subnets: str(in.DBSubnetGroupName), group: str(in.DBParameterGroupName),
		option: str(in.OptionGroupName), security: in.VpcSecurityGroupIds, public: in.PubliclyAccessible, protected: in.DeletionProtection, multiAZ: in.MultiAZ, retention: in.BackupRetentionPeriod, tags: in.Tags})
	if err != nil {
		return nil, err
	}
	return &sdk.RestoreDBInstanceFromDBSnapshotOutput{DBInstance: ptr(d.instance())}, nil
}

func restoreToTime(f *Fake, region string, in *sdk.RestoreDBInstanceToPointInTimeInput) (*sdk.RestoreDBInstanceToPointInTimeOutput, *Fault) {
	d, err := f.toTime(region, false, str(in.SourceDBInstanceIdentifier), in.RestoreTime, in.UseLatestRestorableTime, asked{id: str(in.TargetDBInstanceIdentifier), class: str(in.DBInstanceClass), subnets: str(in.DBSubnetGroupName), group: str(in.DBParameterGroupName),
		option: str(in.OptionGroupName), security: in.VpcSecurityGroupIds, public: in.PubliclyAccessible, protected: in.DeletionProtection, multiAZ: in.MultiAZ, retention: in.BackupRetentionPeriod, tags: in.Tags})
	if err != nil {
		return nil, err
	}
	return &sdk.RestoreDBInstanceToPointInTimeOutput{DBInstance: ptr(d.instance())}, nil
}

func restoreClusterFromSnapshot(f *Fake, region string, in *sdk.RestoreDBClusterFromSnapshotInput) (*sdk.RestoreDBClusterFromSnapshotOutput, *Fault) {
	d, err := f.fromSnapshot(region, true, str(in.SnapshotIdentifier), asked{id: str(in.DBClusterIdentifier), subnets: str(in.DBSubnetGroupName), clusterGroup: str(in.DBClusterParameterGroupName),
		security: in.VpcSecurityGroupIds, protected: in.DeletionProtection, retention: in.BackupRetentionPeriod, tags: in.Tags})
	if err != nil {
		return nil, err
	}
	return &sdk.RestoreDBClusterFromSnapshotOutput{DBCluster: ptr(d.asCluster())}, nil
}

func restoreClusterToTime(f *Fake, region string, in *sdk.RestoreDBClusterToPointInTimeInput) (*sdk.RestoreDBClusterToPointInTimeOutput, *Fault) {
	d, err := f.toTime(region, true, str(in.SourceDBClusterIdentifier), in.RestoreToTime, in.UseLatestRestorableTime, asked{id: str(in.DBClusterIdentifier), subnets: str(in.DBSubnetGroupName), clusterGroup: str(in.DBClusterParameterGroupName),
		security: in.VpcSecurityGroupIds, protected: in.DeletionProtection, retention: in.BackupRetentionPeriod, tags: in.Tags})
	if err != nil {
		return nil, err
	}
	return &sdk.RestoreDBClusterToPointInTimeOutput{DBCluster: ptr(d.asCluster())}, nil
}

// createDBInstance gives a cluster an instance; there is no other way to use it.
func createDBInstance(f *Fake, region string, in *sdk.CreateDBInstanceInput) (*sdk.CreateDBInstanceOutput, *Fault) {
	id := str(in.DBInstanceIdentifier)
	c := f.clusters[key(region, str(in.DBClusterIdentifier))]
	switch {
	case in.DBClusterIdentifier == nil:
		return nil, fault("MissingParameter", "The fake makes instances of clusters only: DBClusterIdentifier is missing.")
	case c == nil:
		return nil, fault("DBClusterNotFoundFault", "DBCluster %s not found.", str(in.DBClusterIdentifier))
	case f.instances[key(region, id)] != nil:
		return nil, fault("DBInstanceAlreadyExists", "DB instance already exists")
	case c.status != "available":
		return nil, fault("InvalidDBClusterStateFault", "DBCluster %s is not available.", c.id)
	case str(in.Engine) != c.engine:
		return nil, fault("InvalidParameterCombination", "The engine %s does not match that of the cluster.", str(in.Engine))
	}
	c.memberGroup = str(in.DBParameterGroupName)
	m := f.addMember(c, id, c.zones[0])
	m.status, m.class, m.public, m.tags = "creating", str(in.DBInstanceClass), isTrue(in.PubliclyAccessible), in.Tags
	first := len(c.members) == 1
	f.later(f.o.Create, func() error {
		if !first {
			return nil
		}
		return c.pg.start()
	}, func(err error) {
		m.status = "available"
		if err != nil {
			m.status = "failed"
		}
		f.dns.set(hostOf(region, c.id), "127.0.0.1")
		f.dns.set(hostOf(region, id), "127.0.0.1")
	})
	return &sdk.CreateDBInstanceOutput{DBInstance: ptr(m.instance())}, nil
}

// mayDelete makes the checks that Amazon makes.
func mayDelete(d *database, skip *bool, final *string) *Fault {
	state := codes(d.cluster, "InvalidDBInstanceState", "InvalidDBClusterStateFault")
	switch {
	case d.protected:
		return fault("InvalidParameterCombination", "Cannot delete protected DB %s, please disable deletion protection and try again.", codes(d.cluster, "Instance", "Cluster"))
	case d.status == "deleting":
		return fault(state, "%s is already being deleted.", d.id)
	case d.status == "creating":
		return fault(state, "%s is being created and cannot be deleted.", d.id)
	case d.parent == nil && !isTrue(skip) && final == nil:
		return fault("InvalidParameterCombination", "FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified.")
	case isTrue(skip) && final != nil:
		return fault("InvalidParameterCombination", "FinalDBSnapshotIdentifier can not be specified when deleting with SkipFinalSnapshot.")
	}
	return nil
}

func (f *Fake) remove(d *database, forget func()) {
	d.status = "deleting"
	f.later(f.o.Delete, func() error {
		d.pg.stop()
		return nil
	}, func(error) {
		f.dns.set(hostOf(d.region, d.id), "")
		forget()
	})
}

func deleteDBInstance(f *Fake, region string, in *sdk.DeleteDBInstanceInput) (*sdk.DeleteDBInstanceOutput, *Fault) {
	id := str(in.DBInstanceIdentifier)
	d := f.instances[key(region, id)]
	if d == nil {
		return nil, fault("DBInstanceNotFound", "DBInstance %s not found.", id)
	}
	if err := mayDelete(d, in.SkipFinalSnapshot, in.FinalDBSnapshotIdentifier); err != nil {
		return nil, err
	}
	f.remove(d, func() {
		delete(f.instances, key(region, id))
		if c := d.parent; c != nil {
			c.members = slices.DeleteFunc(c.members, func(m *database) bool { return m == d })
		}
	})
	return &sdk.DeleteDBInstanceOutput{DBInstance: ptr(d.instance())}, nil
}

func deleteDBCluster(f *Fake, region string, in *sdk.DeleteDBClusterInput) (*sdk.DeleteDBClusterOutput, *Fault) {
	id := str(in.DBClusterIdentifier)
	d := f.clusters[key(region, id)]
	if d == nil {
		return nil, fault("DBClusterNotFoundFault", "DBCluster %s not found.", id)
	}
	if slices.ContainsFunc(d.members, func(m *database) bool { return m.status != "deleting" }) {
		return nil, fault("InvalidDBClusterStateFault", "Cluster cannot be deleted, it still contains DB instances in non-deleting state.")
	}
	if err := mayDelete(d, in.SkipFinalSnapshot, in.FinalDBSnapshotIdentifier); err != nil {
		return nil, err
	}
	f.remove(d, func() { delete(f.clusters, key(region, id)) })
	return &sdk.DeleteDBClusterOutput{DBCluster: ptr(d.asCluster())}, nil
}

// event is something that happened.
type event struct {
	region, id, message string
	at                  time.Time
}

func (f *Fake) happened(d *database, message string) {
	f.events = append(f.events, event{d.region, d.id, message, time.Now()})
}

// flip moves the server to the other zone, which has another address. The name
// leads to the old one until the new one is there.
func (f *Fake) flip(d *database, done func()) {
	f.happened(d, codes(d.cluster, "Multi-AZ instance failover started.", "Started cross AZ failover to DB cluster."))
	d.status = codes(d.cluster, "rebooting", "failing-over")
	f.later(f.o.Failover, func() error {
		if err := d.pg.halt(); err != nil {
			return err
		}
		time.Sleep(f.o.Failover)
		switch {
		case f.o.Stay:
		case d.pg.listen == "127.0.0.1":
			d.pg.listen = otherAddress
		default:
			d.pg.listen = "127.0.0.1"
		}
		return d.pg.start()
	}, func(err error) {
		if err != nil {
			d.status = "failed"
			return
		}
		f.dns.set(hostOf(d.region, d.id), d.pg.listen)
		if !f.o.Stay {
			d.zones[0], d.zones[1] = d.zones[1], d.zones[0]
		}
		d.status = "available"
		done()
		f.happened(d, codes(d.cluster, "Multi-AZ instance failover completed.", "Completed failover to DB instance."))
	})
}

func rebootDBInstance(f *Fake, region string, in *sdk.RebootDBInstanceInput) (*sdk.RebootDBInstanceOutput, *Fault) {
	d := f.instances[key(region, str(in.DBInstanceIdentifier))]
	switch {
	case d == nil:
		return nil, fault("DBInstanceNotFound", "DBInstance %s not found.", str(in.DBInstanceIdentifier))
	case d.status != "available":
		return nil, fault("InvalidDBInstanceState", "Instance %s is not in available state.", d.id)
	case isTrue(in.ForceFailover) && !d.multiAZ:
		return nil, fault("InvalidParameterCombination", "Cannot specify ForceFailover when instance is not configured for MultiAZ.")
	case !isTrue(in.ForceFailover):
		return nil, fault("InvalidParameterValue", "The fake reboots with a failover only.")
	}
	f.flip(d, func() {})
	return &sdk.RebootDBInstanceOutput{DBInstance: ptr(d.instance())}, nil
}

func failoverDBCluster(f *Fake, region string, in *sdk.FailoverDBClusterInput) (*sdk.FailoverDBClusterOutput, *Fault) {
	d := f.clusters[key(region, str(in.DBClusterIdentifier))]
	switch {
	case d == nil:
		return nil, fault("DBClusterNotFoundFault", "DBCluster %s not found.", str(in.DBClusterIdentifier))
	case d.status != "available":
		return nil, fault("InvalidDBClusterStateFault", "DBCluster %s is not in available state.", d.id)
	case len(d.members) < 2:
		return nil, fault("InvalidDBClusterStateFault", "Cannot failover a cluster with one instance.")
	}
	to := 1
	if in.TargetDBInstanceIdentifier != nil {
		to = slices.IndexFunc(d.members, func(m *database) bool { return m.id == *in.TargetDBInstanceIdentifier })
	}
	if to < 1 {
		return nil, fault("InvalidDBInstanceState", "%s is no reader of the cluster.", str(in.TargetDBInstanceIdentifier))
	}
	f.flip(d, func() {
		if !f.o.Stay {
			d.members[0], d.members[to] = d.members[to], d.members[0]
		}
	})
	return &sdk.FailoverDBClusterOutput{DBCluster: ptr(d.asCluster())}, nil
}

// answerSecret is Secrets Manager, as far as a password needs it.
func (f *Fake) answerSecret(w http.ResponseWriter, r *http.Request) {
	var in struct{ SecretId string }
	_ = json.NewDecoder(r.Body).Decode(&in)
	f.mu.Lock()
	value, ok := f.secrets[in.SecretId]
	injected := f.injected("GetSecretValue")
	f.mu.Unlock()
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if injected != nil {
		w.WriteHeader(injected.fault.Status)
		_ = json.NewEncoder(w).Encode(map[string]string{"__type": injected.fault.Code, "Message": injected.fault.Message})
		return
	}
	if r.Header.Get("X-Amz-Target") != "secretsmanager.GetSecretValue" || !ok {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"__type":"ResourceNotFoundException","Message":"Secrets Manager can't find the specified secret."}`)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"ARN": in.SecretId, "Name": in.SecretId, "SecretString": value})
}
