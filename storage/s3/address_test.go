package s3

import (
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
)

func TestAddressesAreRead(t *testing.T) {
	for address, want := range map[string]place{
		"s3://bucket?endpoint=https://host": {
			bucket: "bucket", host: "host", secure: true, region: "us-east-1",
		},
		"s3://bucket/?endpoint=http://127.0.0.1:9000/": {
			bucket: "bucket", host: "127.0.0.1:9000", region: "us-east-1",
		},
		"s3://my-bucket/lab/a/?endpoint=https://[::1]:9000&region=eu-1&ca=/etc/ca.pem&path_style=true": {
			bucket: "my-bucket", prefix: "lab/a/", host: "[::1]:9000", secure: true, region: "eu-1", ca: "/etc/ca.pem", style: minio.BucketLookupPath,
		},
		"s3://bucket/v1.2_x?endpoint=https%3A%2F%2Fhost%3A443&path_style=false": {
			bucket: "bucket", prefix: "v1.2_x/", host: "host:443", secure: true, region: "us-east-1", style: minio.BucketLookupDNS,
		},
	} {
		got, err := parseAddress(address)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", address, got, err, want)
		}
	}
}

func TestBadAddressesAreRefusedWithWords(t *testing.T) {
	const end = "?endpoint=https://host"
	for address, says := range map[string]string{
		"":                                                     "s3://",
		"bucket" + end:                                         "s3://",
		"https://bucket" + end:                                 "s3://",
		"s3:bucket" + end:                                      "s3://",
		"s3://" + end:                                          "s3://",
		"s3://\x7f":                                            "not a URL",
		"s3://bucket" + end + "#x":                             "fragment",
		"s3://bucket:9000" + end:                               "endpoint=",
		"s3://B" + end:                                         "bucket's name",
		"s3://Bucket" + end:                                    "bucket's name",
		"s3://127.0.0.1" + end:                                 "bucket's name",
		"s3://bucket//a" + end:                                 "prefix",
		"s3://bucket/a//b" + end:                               "prefix",
		"s3://bucket/../b" + end:                               "prefix",
		"s3://bucket/./b" + end:                                "prefix",
		"s3://bucket/a%20b" + end:                              "prefix",
		"s3://bucket/" + long(201) + end:                       "prefix",
		"s3://bucket":                                          "endpoint is missing",
		"s3://bucket?endpoint=":                                "endpoint is empty",
		"s3://bucket?endpoint=host:9000":                       "https://",
		"s3://bucket?endpoint=ftp://host":                      "https://",
		"s3://bucket?endpoint=https://":                        "host",
		"s3://bucket?endpoint=https://host/path":               "host",
		"s3://bucket?endpoint=https://host%3Fa":                "host",
		"s3://bucket?endpoint=https://h%25zz":                  "not a URL",
		"s3://bucket" + end + "&endpoint=http://other":         "twice",
		"s3://bucket" + end + "&regoin=x":                      `no parameter "regoin"`,
		"s3://bucket" + end + "&Region=x":                      `no parameter "Region"`,
		"s3://bucket" + end + "&region=":                       "region is empty",
		"s3://bucket" + end + "&region=a b":                    "region",
		"s3://bucket" + end + "&region=a/b":                    "region",
		"s3://bucket" + end + "&path_style=yes":                "true or false",
		"s3://bucket?endpoint=http://host&ca=/etc/ca.pem":      "https",
		"s3://bucket" + end + ";region=x":                      "parameters",
		"s3://bucket" + end + "&region=%zz":                    "parameters",
		"s3://AKIAKEY:s3cr3t@bucket" + end:                     "AWS_ACCESS_KEY_ID",
		"s3://s3cr3t@bucket" + end:                             "AWS_ACCESS_KEY_ID",
		"s3://bucket?endpoint=https://AKIAKEY:s3cr3t@host":     "AWS_ACCESS_KEY_ID",
		"s3://bucket" + end + "&secret_key=s3cr3t":             "AWS_ACCESS_KEY_ID",
		"s3://bucket" + end + "&AccessKey=s3cr3t":              "AWS_ACCESS_KEY_ID",
		"s3://bucket" + end + "&X-Amz-Credential=s3cr3t":       `no parameter "X-Amz-Credential"`,
		"s3://bucket" + end + "&region=" + "%00":               "region",
		"s3://bucket" + end + "&region=" + long(65):            "region",
		"s3://bucket" + end + "&path_style=s3cr3t":             "true or false",
		"s3://AKIAKEY:s3cr3t%zz@bucket" + end:                  "not a URL",
		"s3://bucket?endpoint=https%3A%2F%2Fs3cr3t%3A%2540%40": "AWS_ACCESS_KEY_ID",
		"s3://bucket" + end + "&session_token=s3cr3t":          "AWS_ACCESS_KEY_ID",
		"s3://bucket" + end + "&secret%5Fkey=s3cr3t":           "AWS_ACCESS_KEY_ID",
		"s3://bucket" + end + "&SECRET_KEY=ab&s3cr3t":          "AWS_ACCESS_KEY_ID",
		"s3://bucket" + end + "&auth=ab&s3cr3t=x":              `no parameter "auth"`,
		"s3://AKIAKEY:12/s3cr3t@bucket" + end:                  "AWS_ACCESS_KEY_ID",
		"s3://AKIAKEY:12?s3cr3t@bucket" + end:                  "AWS_ACCESS_KEY_ID",
		"s3://AKIAKEY:12#s3cr3t@bucket" + end:                  "AWS_ACCESS_KEY_ID",
		"s3://AKIAKEY:s3cr3t/x@bucket" + end:                   "not a URL",
		"s3://AKIAKEY:12/s3cr3t" + end:                         "endpoint=",
		"s3://bucket/s3cr3t;x" + end:                           "prefix",
		"s3://s3cr3t_" + end:                                   "bucket's name",
		"s3://bucket?endpoint=https://AKIAKEY:s&s3cr3t=x@host": "AWS_ACCESS_KEY_ID",
		"s3://bucket" + end + ";secret=s3cr3t":                 "parameters",
	} {
		_, err := parseAddress(address)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: error %v, want one that says %q", address, err, says)
		}
		if err != nil && (strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), "AKIAKEY")) {
			t.Errorf("%q: the error says a secret: %v", address, err)
		}
	}
}

func long(n int) string { return strings.Repeat("a", n) }
