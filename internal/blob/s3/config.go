package s3

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"testbox-imaging/internal/blob"
)

// Config says where the bucket is.
type Config struct {
	Bucket   string
	Prefix   string // of all keys, without the "/" after it; "" if there is none
	Endpoint string // host[:port] of the server; "" for Amazon's
	Insecure bool   // HTTP without TLS
	Region   string // "" to ask the server for it
	// OnlyWriter says that nobody else writes there, so the server need not
	// support conditional writes. Versions are then checked before each write.
	OnlyWriter bool
}

const amazon = "s3.amazonaws.com"

// ParseURL parses
// s3://BUCKET[/PREFIX][?endpoint=http[s]://HOST[:PORT]][&region=REGION].
func ParseURL(text string) (Config, error) {
	u, err := url.Parse(text)
	if err != nil {
		return Config{}, err
	}
	c := Config{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/")}
	switch {
	case u.Scheme != "s3" || u.Host == "" || u.Opaque != "" || u.Fragment != "":
		err = errors.New("want s3://BUCKET/PREFIX")
	case u.User != nil:
		err = errors.New("keys do not belong here; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	case c.Prefix != "" && !blob.ValidName(c.Prefix):
		err = errors.New("the prefix may have letters, digits and any of -_. between slashes")
	default:
		err = c.options(u.RawQuery)
	}
	if err != nil {
		return Config{}, fmt.Errorf("%q: %w", u.Redacted(), err)
	}
	return c, nil
}

func (c *Config) options(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return err
	}
	for key, v := range values {
		switch {
		case len(v) != 1:
			return fmt.Errorf("%s is given more than once", key)
		case key == "region":
			c.Region = v[0]
		case key == "endpoint":
			if err := c.endpoint(v[0]); err != nil {
				return err
			}
		default:
			return fmt.Errorf("no option is called %q; there are endpoint and region", key)
		}
	}
	return nil
}

func (c *Config) endpoint(text string) error {
	e, err := url.Parse(text)
	if err != nil || e.Host == "" || e.Scheme != "http" && e.Scheme != "https" || strings.Trim(e.Path, "/") != "" || e.RawQuery != "" ||
		e.User != nil {
		return fmt.Errorf("the endpoint %q is not http://HOST:PORT or https://HOST:PORT", text)
	}
	c.Endpoint, c.Insecure = e.Host, e.Scheme == "http"
	return nil
}
