package s3_test

import (
	"testing"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/s3"
)

func TestParseURL(t *testing.T) {
	for text, want := range map[string]s3.Config{
		"s3://bucket":                                    {Bucket: "bucket"},
		"s3://bucket/":                                   {Bucket: "bucket"},
		"s3://bucket/a/b/":                               {Bucket: "bucket", Prefix: "a/b"},
		"s3://b/p?region=eu-west-1":                      {Bucket: "b", Prefix: "p", Region: "eu-west-1"},
		"s3://b?endpoint=http://10.0.0.1:9000":           {Bucket: "b", Endpoint: "10.0.0.1:9000", Insecure: true},
		"s3://b?endpoint=https://host/&region=us-east-1": {Bucket: "b", Endpoint: "host", Region: "us-east-1"},
	} {
		if got, err := s3.ParseURL(text); err != nil || got != want {
			t.Errorf("%s is %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "bucket", "http://bucket/a", "s3:bucket", "s3:///a", "s3://b/../c", "s3://b/a//c", "s3://b/a b",
		"s3://key:secret@b/a",
		"s3://b#a", "s3://b?endpoint=host:9000", "s3://b?endpoint=ftp://host", "s3://b?endpoint=http://host/path",
		"s3://b?endpoint=http://u@host",
		"s3://b?region=a&region=b", "s3://b?pathstyle=1", "s3://b?%zz"} {
		if got, err := s3.ParseURL(text); err == nil {
			t.Errorf("%s is %+v, want an error", text, got)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("s3://bucket/a/b?endpoint=http://10.0.0.1:9000&region=eu-west-1")
	f.Add("s3://key:secret@bucket")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := s3.ParseURL(text)
		if err == nil && (c.Bucket == "" || c.Prefix != "" && !blob.ValidName(c.Prefix)) {
			t.Errorf("%q is %+v", text, c)
		}
	})
}
