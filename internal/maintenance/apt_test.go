package maintenance

import (
	"slices"
	"strings"
	"testing"
)

const showText = `Package: linux-image-amd64
Source: linux-signed-amd64 (6.1.192+2)
Version: 6.1.192-2
Pre-Depends: dpkg (>= 1.2)
Depends: linux-image-6.1.0-56-amd64 (= 6.1.192-2), kmod | busybox:any
Description: Linux
 goes on
SHA256: a86e2049672f52354c4536a089203b6c82639420424d31c91cf31a181fd4d8f1

Package: other
`

func TestParseShow(t *testing.T) {
	p, err := parseShow([]byte(showText))
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "linux-image-amd64" || p.Version != "6.1.192-2" ||
		!slices.Equal(p.depends, []string{"dpkg", "linux-image-6.1.0-56-amd64", "kmod"}) {
		t.Errorf("%+v", p)
	}
	for _, change := range [][2]string{{"Version: 6", "Version: ../6"}, {"Package: linux", "Package: ../linux"},
		{"SHA256: a8", "SHA256: A8"}, {"SHA256", "MD5Sum"}} {
		if p, err := parseShow([]byte(strings.Replace(showText, change[0], change[1], 1))); err == nil {
			t.Errorf("%s gave %+v", change[1], p)
		}
	}
	if _, err := parseShow(nil); err == nil {
		t.Error("nothing gave a package")
	}
}

func TestComplaints(t *testing.T) {
	got := complaints([]byte("Hit:1 x\nW: Failed to fetch y\nN: a notice\nE: z\nW: Download is performed unsandboxed as root\n"))
	if !slices.Equal(got, []string{"apt: Failed to fetch y", "apt: z"}) {
		t.Errorf("%q", got)
	}
}

func FuzzParseShow(f *testing.F) {
	f.Add([]byte(showText))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parseShow(data)
		if err != nil {
			return
		}
		if strings.Contains(p.Name+p.Version+p.SHA256, "/") || p.Name == "" || p.Name[0] == '-' || p.Name[0] == '.' {
			t.Fatalf("%+v", p)
		}
	})
}
