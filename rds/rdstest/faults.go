package rdstest

import (
	"fmt"
	"net/http"
)

// Fault is an answer that is no success.
type Fault struct {
	Status  int
	Code    string
	Message string
}

func (f *Fault) Error() string { return f.Code + ": " + f.Message }

// The codes that the fake answers with. Those of commonCodes belong to the query
// protocol of all services; the model has no type for them. A test holds the
// others to the SDK, action by action.
var (
	modelCodes = map[string][]string{
		"DescribeDBInstances":             {"DBInstanceNotFound"},
		"DescribeDBClusters":              {"DBClusterNotFoundFault"},
		"DescribeDBSnapshots":             {"DBSnapshotNotFound"},
		"DescribeDBClusterSnapshots":      {"DBClusterSnapshotNotFoundFault"},
		"CreateDBSnapshot":                {"DBInstanceNotFound", "DBSnapshotAlreadyExists", "InvalidDBInstanceState", "SnapshotQuotaExceeded"},
		"CreateDBClusterSnapshot":         {"DBClusterNotFoundFault", "DBClusterSnapshotAlreadyExistsFault", "InvalidDBClusterStateFault", "SnapshotQuotaExceeded"},
		"CopyDBSnapshot":                  {"DBSnapshotNotFound", "DBSnapshotAlreadyExists", "InvalidDBSnapshotState", "KMSKeyNotAccessibleFault", "SnapshotQuotaExceeded"},
		"CopyDBClusterSnapshot":           {"DBClusterSnapshotNotFoundFault", "DBClusterSnapshotAlreadyExistsFault", "InvalidDBClusterSnapshotStateFault", "KMSKeyNotAccessibleFault", "SnapshotQuotaExceeded"},
		"DeleteDBSnapshot":                {"DBSnapshotNotFound", "InvalidDBSnapshotState"},
		"DeleteDBClusterSnapshot":         {"DBClusterSnapshotNotFoundFault", "InvalidDBClusterSnapshotStateFault"},
		"AddTagsToResource":               {"DBInstanceNotFound", "DBSnapshotNotFound"},
		"RestoreDBInstanceFromDBSnapshot": {"DBInstanceAlreadyExists", "DBSnapshotNotFound", "InvalidDBSnapshotState", "DBSubnetGroupNotFoundFault", "DBParameterGroupNotFound", "InstanceQuotaExceeded"},
		"RestoreDBInstanceToPointInTime":  {"DBInstanceAlreadyExists", "DBInstanceNotFound", "InvalidDBInstanceState", "PointInTimeRestoreNotEnabled", "DBSubnetGroupNotFoundFault", "DBParameterGroupNotFound", "InstanceQuotaExceeded"},
		"RestoreDBClusterFromSnapshot":    {"DBClusterAlreadyExistsFault", "DBClusterSnapshotNotFoundFault", "InvalidDBClusterSnapshotStateFault", "DBSubnetGroupNotFoundFault", "DBClusterParameterGroupNotFound"},
		"RestoreDBClusterToPointInTime":   {"DBClusterAlreadyExistsFault", "DBClusterNotFoundFault", "InvalidDBClusterStateFault", "DBSubnetGroupNotFoundFault", "DBClusterParameterGroupNotFound"},
		"CreateDBInstance":                {"DBInstanceAlreadyExists", "DBClusterNotFoundFault", "InvalidDBClusterStateFault", "DBParameterGroupNotFound", "InstanceQuotaExceeded"},
		"DeleteDBInstance":                {"DBInstanceNotFound", "InvalidDBInstanceState"},
		"DeleteDBCluster":                 {"DBClusterNotFoundFault", "InvalidDBClusterStateFault"},
		"RebootDBInstance":                {"DBInstanceNotFound", "InvalidDBInstanceState"},
		"FailoverDBCluster":               {"DBClusterNotFoundFault", "InvalidDBClusterStateFault", "InvalidDBInstanceState"},
		"DescribeEvents":                  nil,
	}
	commonCodes = []string{"InvalidParameterValue", "InvalidParameterCombination", "MissingParameter", "InvalidAction", "AccessDenied", "Throttling", "ExpiredToken", "InternalFailure"}
)

func fault(code, format string, args ...any) *Fault {
	status := http.StatusBadRequest
	switch code {
	case "AccessDenied", "ExpiredToken":
		status = http.StatusForbidden
	case "InternalFailure", "InternalServiceError":
		status = http.StatusInternalServerError
	case "DBInstanceNotFound", "DBSnapshotNotFound", "DBClusterNotFoundFault", "DBClusterSnapshotNotFoundFault", "DBSubnetGroupNotFoundFault", "DBParameterGroupNotFound", "DBClusterParameterGroupNotFound":
		status = http.StatusNotFound
	}
	return &Fault{status, code, fmt.Sprintf(format, args...)}
}
