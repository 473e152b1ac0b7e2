package rdstest

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// Options says how the fake behaves. A zero length of time is 100 ms.
type Options struct {
	Create, Snapshot, Copy, Delete, Failover time.Duration // how long each takes at least
	PageSize                                 int           // of lists; 0 is 100
	MostCopies                               int           // at once into a region; 0 is 20, more wait in line
	Hold                                     bool          // restored databases stay "creating"
	Stay                                     bool          // a failover restarts the server in the same zone
}

// Fake is RDS in all regions of one account.
type Fake struct {
	URL  string
	CA   string // file of the certificate of the servers
	DNS  string // address of the name server
	Home string // directory of all data

	o       Options
	install server.Install
	dns     *nameServer

	mu        sync.Mutex
	work      sync.WaitGroup
	instances map[string]*database // by region/id
	clusters  map[string]*database
	snapshots map[string]*snapshot // by region/kind/id
	groups    map[string]bool      // region/kind/name of groups that are not there: see Without
	calls     []Call
	inject    []*injection
	events    []event
	secrets   map[string]string
	stalls    map[string]time.Duration
	quota     int
	spoil     int // copies to come that fail
}

// Call is a request that was made.
type Call struct {
	Region, Action string
	Key            string // id of the access key that signed it
	Form           map[string]string
	Code           string // "" when it succeeded
}

// injection answers matching calls with a fault, some times.
type injection struct {
	action string
	left   int
	fault  *Fault
	also   bool // after having done what was asked: the answer is lost
}

const (
	account    = "123456789012"
	apiXMLNS   = "http://rds.amazonaws.com/doc/2014-10-31/"
	MasterRole = "master"
)

// Password is that of the role master in all databases.
const Password = "a password of the tests"

// Start runs the fake until the end of the test.
func Start(t testing.TB, o Options) *Fake {
	t.Helper()
	for _, d := range []*time.Duration{&o.Create, &o.Snapshot, &o.Copy, &o.Delete, &o.Failover} {
		if *d == 0 {
			*d = 100 * time.Millisecond
		}
	}
	if o.PageSize == 0 {
		o.PageSize = 100
	}
	if o.MostCopies == 0 {
		o.MostCopies = 20
	}
	f := &Fake{o: o, install: servertest.Find(t), Home: t.TempDir(), instances: map[string]*database{}, clusters: map[string]*database{},
		snapshots: map[string]*snapshot{}, groups: map[string]bool{}, secrets: map[string]string{}, stalls: map[string]time.Duration{}, quota: 100}
	f.makeCertificates(t)
	f.dns = startDNS(t)
	f.DNS = f.dns.addr
	http := httptest.NewServer(f)
	f.URL = http.URL
	t.Cleanup(func() {
		http.Close()
		f.work.Wait()
		for _, d := range f.all() {
			d.pg.stop()
		}
	})
	return f
}

func (f *Fake) all() []*database {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*database
	for _, m := range []map[string]*database{f.instances, f.clusters} {
		for _, d := range m {
			if d.pg != nil {
				out = append(out, d)
			}
		}
	}
	return out
}

// Env is what the SDK needs in its environment to come here.
func (f *Fake) Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=AKIDTEST", "AWS_SECRET_ACCESS_KEY=none", "AWS_EC2_METADATA_DISABLED=true", "AWS_SESSION_TOKEN=", "AWS_PROFILE=",
		"AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent"}
}

// Inject answers the next n calls of an action ("" is any) with a code.
func (f *Fake) Inject(action, code string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	message := "injected by the test"
	if code == "AccessDenied" {
		message = fmt.Sprintf("User: arn:aws:iam::%s:user/test is not authorized to perform: rds:%s on resource: * because no identity-based policy allows the rds:%s action", account, action, action)
	}
	f.inject = append(f.inject, &injection{action: action, left: n, fault: fault(code, "%s", message)})
}

// LoseAnswer does what the next call of the action asks for, and answers with an
// internal failure.
func (f *Fake) LoseAnswer(action string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inject = append(f.inject, &injection{action: action, left: 1, fault: fault("InternalFailure", "the answer is lost"), also: true})
}

// Stall has the next call of an action be carried out after so long, whether or not
// somebody still waits for the answer.
func (f *Fake) Stall(action string, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stalls[action] = d
}

func (f *Fake) stalled(action string) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.stalls[action]
	delete(f.stalls, action)
	return d
}

// Heal takes all injected faults back.
func (f *Fake) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inject = nil
}

// Quota sets how many manual snapshots a region may hold.
func (f *Fake) Quota(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.quota = n
}

// FailCopies has the next n copies fail at their end.
func (f *Fake) FailCopies(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.spoil = n
}

// Secret puts a secret into Secrets Manager.
func (f *Fake) Secret(name, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.secrets[name] = value
}

// Calls returns the requests so far, of one action or of all ("").
func (f *Fake) Calls(action string) []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.calls), func(c Call) bool { return action != "" && c.Action != action })
}

var scope = regexp.MustCompile(`Credential=([^/]+)/[0-9]+/([a-z0-9-]+)/(rds|secretsmanager)/aws4_request`)

// ServeHTTP answers one request.
func (f *Fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m := scope.FindStringSubmatch(r.Header.Get("Authorization"))
	if m == nil {
		f.answer(w, "", nil, fault("InvalidParameterValue", "the request is not signed"))
		return
	}
	if m[3] == "secretsmanager" {
		f.answerSecret(w, r)
		return
	}
	if err := r.ParseForm(); err != nil {
		f.answer(w, "", nil, fault("InvalidParameterValue", "%v", err))
		return
	}
	action := r.Form.Get("Action")
	call := Call{Region: m[2], Action: action, Key: m[1], Form: map[string]string{}}
	for k := range r.Form {
		call.Form[k] = r.Form.Get(k)
	}
	time.Sleep(f.stalled(action))
	f.mu.Lock()
	defer f.mu.Unlock()
	out, err := f.handle(m[2], action, r.Form)
	if err != nil {
		call.Code = err.Code
	}
	f.calls = append(f.calls, call)
	f.answer(w, action, out, err)
}

// injected is the fault that a call of the action is answered with; nil is none.
func (f *Fake) injected(action string) *injection {
	for _, i := range f.inject {
		if i.left > 0 && (i.action == "" || i.action == action) {
			i.left--
			return i
		}
	}
	return nil
}

func (f *Fake) handle(region, action string, form map[string][]string) (any, *Fault) {
	h, ok := handlers[action]
	if !ok {
		return nil, fault("InvalidAction", "Could not find operation %s for version 2014-10-31", action)
	}
	lost := (*Fault)(nil)
	if i := f.injected(action); i != nil {
		if !i.also {
			return nil, i.fault
		}
		lost = i.fault
	}
	in := reflect.New(h.input)
	if err := decode(form, in.Interface()); err != nil {
		return nil, fault("InvalidParameterValue", "%v", err)
	}
	out, err := h.do(f, region, in.Interface())
	if lost != nil {
		return nil, lost
	}
	if err != nil && !slices.Contains(modelCodes[action], err.Code) && !slices.Contains(commonCodes, err.Code) {
		err = fault("InternalFailure", "the fake has answered %s with %s, which is in none of its tables", action, err.Code)
	}
	return out, err
}

// answer writes what the query protocol has for a result or a fault.
func (f *Fake) answer(w http.ResponseWriter, action string, out any, err *Fault) {
	w.Header().Set("Content-Type", "text/xml")
	var b bytes.Buffer
	id := randomHex(16)
	if err != nil {
		w.WriteHeader(err.Status)
		kind := "Sender"
		if err.Status >= 500 {
			kind = "Receiver"
		}
		fmt.Fprintf(&b, `<ErrorResponse xmlns="%s"><Error>`, apiXMLNS)
		element(&b, "Type", kind)
		element(&b, "Code", err.Code)
		element(&b, "Message", err.Message)
		b.WriteString("</Error>")
		element(&b, "RequestId", id)
		b.WriteString("</ErrorResponse>")
	} else {
		fmt.Fprintf(&b, `<%sResponse xmlns="%s"><%sResult>`, action, apiXMLNS, action)
		encodeFields(&b, reflect.ValueOf(out).Elem())
		fmt.Fprintf(&b, `</%sResult><ResponseMetadata>`, action)
		element(&b, "RequestId", id)
		fmt.Fprintf(&b, `</ResponseMetadata></%sResponse>`, action)
	}
	_, _ = w.Write(b.Bytes())
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

func arn(region, kind, id string) string {
	return fmt.Sprintf("arn:aws:rds:%s:%s:%s:%s", region, account, kind, id)
}

func ptr[T any](v T) *T { return &v }

func str(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

func key(region string, more ...string) string {
	return path.Join(append([]string{region}, more...)...)
}

// isTrue is false for nil.
func isTrue(b *bool) bool { return b != nil && *b }

// handler is one action.
type handler struct {
	input reflect.Type
	do    func(f *Fake, region string, in any) (any, *Fault)
}

func on[I, O any](do func(f *Fake, region string, in *I) (*O, *Fault)) handler {
	return handler{reflect.TypeFor[I](), func(f *Fake, region string, in any) (any, *Fault) {
		out, err := do(f, region, in.(*I))
		return out, err
	}}
}

// page cuts a list by the marker.
func page[T any](f *Fake, all []T, marker *string) ([]T, *string) {
	from := 0
	if marker != nil {
		_, _ = fmt.Sscan(*marker, &from)
	}
	from = min(from, len(all))
	to := min(len(all), from+f.o.PageSize)
	if to < len(all) {
		return all[from:to], ptr(fmt.Sprint(to))
	}
	return all[from:to], nil
}

func lastPart(arn string) string { return arn[strings.LastIndex(arn, ":")+1:] }
