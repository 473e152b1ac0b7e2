package aws

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"sync"

	"github.com/aws/smithy-go"

	"github.com/lifeboat-dr/lifeboat/rds"
)

// translate makes a *rds.Error of what the SDK returned. What the context ended
// stays what it is.
func translate(ctx context.Context, action string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e := &rds.Error{Action: "rds:" + action, Message: err.Error(), Err: rds.ErrUnavailable}
	answer, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		e.Message = lastCause(err)
		if strings.Contains(err.Error(), "get identity: get credentials") || strings.Contains(err.Error(), "failed to refresh cached credentials") {
			e.Message, e.Err = "no AWS credentials could be had", rds.ErrCredentials
		}
		return e
	}
	e.Code, e.Message, e.Err = answer.ErrorCode(), answer.ErrorMessage(), meaning(answer)
	// Some calls need rights for others too, and the answer names the one.
	if m := notAuthorized().FindStringSubmatch(e.Message); e.Err == rds.ErrDenied && m != nil {
		e.Action = m[1]
	}
	return e
}

var notAuthorized = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`not authorized to perform:? ([a-z0-9-]+:[A-Za-z]+)`)
})

// lastCause is what an error of the SDK without an answer comes down to.
func lastCause(err error) string {
	s := err.Error()
	if i := strings.LastIndex(s, "https response error StatusCode: 0, RequestID: , "); i >= 0 {
		s = s[i+len("https response error StatusCode: 0, RequestID: , "):]
	}
	return strings.TrimPrefix(s, "request send failed, ")
}

// meaning sorts the codes of the API: those of RDS, and those that all of
// Amazon's services have.
func meaning(e smithy.APIError) error {
	code := e.ErrorCode()
	is := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(code, p) {
				return true
			}
		}
		return false
	}
	switch {
	case is("Throttl", "RequestLimitExceeded", "SlowDown"):
		return rds.ErrThrottled
	case is("ExpiredToken", "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClient", "InvalidSignature", "IncompleteSignature", "MissingAuthenticationToken", "RequestExpired", "AuthFailure"):
		return rds.ErrCredentials
	case is("AccessDenied", "UnauthorizedOperation", "NotAuthorized", "KMSKeyNotAccessible"):
		return rds.ErrDenied
	case is("NotFound"):
		return rds.ErrNotFound
	case is("AlreadyExists"):
		return rds.ErrExists
	case is("QuotaExceeded", "LimitExceeded", "InsufficientDBInstanceCapacity", "InsufficientStorageClusterCapacity"):
		return rds.ErrQuota
	case is("InvalidDBInstanceState", "InvalidDBClusterState", "InvalidDBSnapshotState", "InvalidDBClusterSnapshotState", "InvalidSubnet"):
		return rds.ErrState
	case e.ErrorFault() == smithy.FaultServer, is("InternalFailure", "InternalError", "ServiceUnavailable"):
		return rds.ErrUnavailable
	}
	return rds.ErrInvalid
}
