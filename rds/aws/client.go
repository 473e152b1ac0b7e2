package aws

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	sdk "github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/smithy-go/logging"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/storage/direct"
)

// Options say how RDS is reached. Credentials come from the SDK's own chain.
type Options struct {
	Endpoint        string        // URL of all services; "" is Amazon's
	Attempts        int           // tries of one call; 0 is 8
	MostBackoff     time.Duration // between tries; 0 is 20 s
	CredentialsFrom aws.CredentialsProvider
	Now             func() time.Time // by which credentials of a file are read again; nil: they are read once
}

// Cloud is Amazon, by region.
type Cloud struct {
	o      Options
	client *awshttp.BuildableClient

	mu      sync.Mutex
	configs map[string]aws.Config
}

// New prepares it. It sends nothing.
func New(o Options) *Cloud {
	if o.Attempts == 0 {
		o.Attempts = 8
	}
	if o.MostBackoff == 0 {
		o.MostBackoff = 20 * time.Second
	}
	client := awshttp.NewBuildableClient().WithTimeout(60 * time.Second).WithTransportOptions(func(t *http.Transport) { t.Proxy = direct.Proxy })
	return &Cloud{o: o, client: client, configs: map[string]aws.Config{}}
}

// config reads the SDK's configuration once for each region.
func (c *Cloud) config(region string) (aws.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cfg, ok := c.configs[region]; ok {
		return cfg, nil
	}
	load := []func(*config.LoadOptions) error{
		config.WithHTTPClient(c.client), config.WithLogger(logging.Nop{}), config.WithRegion(region),
		// The container's credentials come through a client of the SDK's own otherwise.
		config.WithEndpointCredentialOptions(func(o *endpointcreds.Options) { o.HTTPClient = c.client }),
		// A call that fails is tried again after a pause that doubles, with
		// chance in it; RDS asks for that where it throttles.
		config.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = c.o.Attempts, c.o.MostBackoff })
		}),
	}
	switch {
	case c.o.CredentialsFrom != nil:
		load = append(load, config.WithCredentialsProvider(c.o.CredentialsFrom))
	case c.o.Now != nil:
		load = append(load, config.WithCredentialsProvider(aws.NewCredentialsCache(c.readAgain(slices.Clone(load)))))
	}
	cfg, err := config.LoadDefaultConfig(context.Background(), load...)
	if err != nil {
		return cfg, &rds.Error{Action: "AWS configuration", Message: err.Error(), Err: rds.ErrCredentials}
	}
	c.configs[region] = cfg
	return cfg, nil
}

// heldFor is how long credentials count that do not say how long they do.
const heldFor = 5 * time.Minute

// readAgain goes through the SDK's chain from its start. Keys in a file, which
// another program may renew, have no end that the SDK knows of, and a drill takes
// longer than they hold.
func (c *Cloud) readAgain(load []func(*config.LoadOptions) error) aws.CredentialsProviderFunc {
	return func(ctx context.Context) (aws.Credentials, error) {
		cfg, err := config.LoadDefaultConfig(ctx, load...)
		if err != nil {
			return aws.Credentials{}, err
		}
		v, err := cfg.Credentials.Retrieve(ctx)
		if err == nil && !v.CanExpire {
			v.CanExpire, v.Expires = true, c.o.Now().Add(heldFor)
		}
		return v, err
	}
}

// RDS gives the API of a region.
func (c *Cloud) RDS(region string) (rds.API, error) {
	if region == "" {
		return nil, fmt.Errorf("no region")
	}
	cfg, err := c.config(region)
	if err != nil {
		return nil, err
	}
	client := sdk.NewFromConfig(cfg, func(o *sdk.Options) {
		if c.o.Endpoint != "" {
			o.BaseEndpoint = &c.o.Endpoint
		}
	})
	return &api{client}, nil
}

var _ rds.Regions = (*Cloud)(nil).RDS

// api is RDS in one region.
type api struct{ *sdk.Client }

var _ rds.API = (*api)(nil)
