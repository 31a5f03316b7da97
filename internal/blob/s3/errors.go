package s3

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
)

// explain adds to an error what is set up wrongly and what to do about it, if
// that is known.
func (s *Store) explain(err error) error {
	if err == nil {
		return nil
	}
	r := minio.ToErrorResponse(err)
	if r.StatusCode == http.StatusNotImplemented {
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	advice := s.answered(r)
	if advice == "" {
		advice = s.unanswered(err)
	}
	if advice == "" {
		return err
	}
	return fmt.Errorf("%s (the error was: %w)", advice, err)
}

// answered explains what the server says.
func (s *Store) answered(r minio.ErrorResponse) string {
	if strings.Contains(strings.ToLower(r.Message), "no such key") && r.StatusCode == http.StatusForbidden { // Garage says this
		r.Code = minio.InvalidAccessKeyID
	}
	switch r.Code {
	case minio.InvalidAccessKeyID, "XAdminUserNotFound", "InvalidClientTokenId":
		return fmt.Sprintf("the server does not know the access key %s; check AWS_ACCESS_KEY_ID, and that the endpoint is the right server",
			s.accessKey)
	case "SignatureDoesNotMatch":
		return fmt.Sprintf("the secret of the access key %s is wrong; check AWS_SECRET_ACCESS_KEY", s.accessKey)
	case "ExpiredToken", "InvalidToken", "TokenRefreshRequired":
		return "the session token has expired or is wrong; get a new one, and set AWS_SESSION_TOKEN with its two keys"
	case "AuthorizationHeaderMalformed", "InvalidRegion", "IllegalLocationConstraintException", "PermanentRedirect", "TemporaryRedirect":
		return s.wrongRegion(r)
	case "RequestTimeTooSkewed", "RequestExpired":
		return fmt.Sprintf("the clock of this machine (%s) differs too much from the server's; set the clock, for example with NTP",
			time.Now().UTC().Format(time.RFC3339))
	case minio.NoSuchBucket:
		return fmt.Sprintf("the server has no bucket %s; make it first, or correct the name", s.cfg.Bucket)
	case minio.InvalidBucketName:
		return fmt.Sprintf("no bucket can be called %s; correct the name", s.cfg.Bucket)
	case minio.AccessDenied, "AccountProblem", "AllAccessDisabled", "Forbidden":
		return fmt.Sprintf("the access key %s may not do this in the bucket %s; give it the right to list the bucket, and to read, write "+
			"and delete its objects",
			s.accessKey, s.cfg.Bucket)
	case "QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "EntityTooLarge":
		return "the server has no room for this; give the bucket more, or delete backups and run `testbox store gc`"
	}
	return ""
}

func (s *Store) wrongRegion(r minio.ErrorResponse) string {
	said := "the server is asked to say it"
	if s.cfg.Region != "" {
		said = fmt.Sprintf("the URL says region=%s", s.cfg.Region)
	}
	if r.Region != "" && r.Region != s.cfg.Region {
		return fmt.Sprintf("the bucket %s is in the region %s, and %s; put region=%s into the URL", s.cfg.Bucket, r.Region, said, r.Region)
	}
	return fmt.Sprintf("the region is wrong: %s; put the bucket's region into the URL as region=NAME", said)
}

// unanswered explains errors on the way to the server.
func (s *Store) unanswered(err error) string {
	var dns *net.DNSError
	var op *net.OpError
	var record tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case strings.Contains(err.Error(), "HTTP request to an HTTPS server"),
		strings.Contains(err.Error(), "HTTP request was sent to HTTPS port"):
		return "the server speaks HTTPS only; write the endpoint as https://..."
	case errors.As(err, new(*pageError)):
		return "this is no S3 server; correct the endpoint, whose port is often another one than that of the server's web page"
	case errors.As(err, &dns):
		return fmt.Sprintf("the host name %s is not known; correct the endpoint", dns.Name)
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "the server does not speak HTTPS; write the endpoint as http://..., or correct its port"
	case errors.As(err, &unknown), errors.As(err, &host), errors.As(err, &invalid):
		return "the server's certificate is not trusted here; install its authority's certificate on this machine, or correct the endpoint"
	case errors.As(err, &op) && op.Op == "dial":
		return fmt.Sprintf("%s cannot be reached; check the endpoint, the server and the network", s.cfg.Endpoint)
	}
	return ""
}

// noPages refuses answers that are web pages. If a web server has no such page,
// the client would take its answer to mean that the bucket does not exist.
type noPages struct{ http.RoundTripper }

// pageError is an answer that does not come from an S3 server.
type pageError struct {
	status, kind, text string
}

func (e *pageError) Error() string {
	return fmt.Sprintf("the answer is %s with the status %s: %q", e.kind, e.status, e.text)
}

// isPage reports whether an answer is not in XML, as the answers of S3 are.
func isPage(kind string, status int) bool {
	if status >= 500 || status == http.StatusTooManyRequests {
		return false
	}
	other := strings.HasPrefix(kind, "text/plain") || strings.HasPrefix(kind, "application/json")
	return strings.HasPrefix(kind, "text/html") || other && status >= 400
}

// maxPage is how many bytes of a page an error quotes.
const maxPage = 200

// RoundTrip implements http.RoundTripper. A page that says that a server has a
// problem is let through, since it may come from a proxy, and the problem may
// be temporary.
func (t noPages) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := t.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	kind := res.Header.Get("Content-Type")
	if !isPage(kind, res.StatusCode) {
		return res, nil
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxPage))
	return nil, final{&pageError{res.Status, kind, string(text)}}
}
