package s3

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// form is what an address looks like; errors show it and nothing that was given
// where a secret may stand.
const form = "s3://bucket[/prefix]?endpoint=https://host[:port][&region=R][&ca=FILE][&path_style=true|false]"

// place is an address, read.
type place struct {
	bucket string
	prefix string // of every key: "" or ending in a slash
	host   string // of the endpoint, with its port
	secure bool   // https
	region string
	ca     string // a file, "" for the system's certificates
	style  minio.BucketLookupType
}

var parameters = []string{"endpoint", "region", "ca", "path_style"}

// ErrAddress: an address is not written as Open wants it.
var ErrAddress = errors.New("the address of the blobs")

// errCredentials: keys do not belong into an address, which others see: in
// process lists, unit files and logs.
var errCredentials = fmt.Errorf("credentials do not belong into %w: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "+
	"or AWS_SHARED_CREDENTIALS_FILE, in the environment", ErrAddress)

// CheckAddress refuses an address of blobs that cannot be read, or that holds credentials.
// Its errors hold nothing that may be secret.
func CheckAddress(address string) error {
	_, err := parseAddress(address)
	return err
}

func parseAddress(address string) (place, error) {
	p, err := readAddress(address)
	if err != nil && !errors.Is(err, errCredentials) {
		err = fmt.Errorf("%w: %w; it looks like %s", ErrAddress, err, form)
	}
	return p, err
}

func readAddress(address string) (place, error) {
	u, err := url.Parse(address)
	if err != nil { // url.Parse would say the address
		return place{}, errors.New("it is not a URL")
	}
	if strings.Contains(address, "@") || u.User != nil { // also one in the path, behind a key that holds a slash
		return place{}, errCredentials
	}
	if u.Scheme != "s3" || u.Host == "" || u.Opaque != "" || u.Fragment != "" {
		return place{}, errors.New("it does not begin with s3:// and a bucket, or has a fragment")
	}
	if u.Port() != "" {
		return place{}, errors.New("after s3:// comes the bucket; host and port belong into endpoint=")
	}
	if err := s3utils.CheckValidBucketNameStrict(u.Host); err != nil {
		return place{}, fmt.Errorf("the bucket's name: %w", err)
	}
	p := place{bucket: u.Host, region: "us-east-1", style: minio.BucketLookupAuto}
	if p.prefix, err = readPrefix(u.Path); err != nil {
		return place{}, err
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return place{}, errors.New("what follows the question mark is not parameters")
	}
	if err := checkNames(u.RawQuery); err != nil {
		return place{}, err
	}
	return p, p.take(values)
}

// checkNames refuses parameters by their names. The first that there is not is the one
// that is said: what follows it may be a part of its value, and is not.
func checkNames(query string) error {
	unknown := ""
	for pair := range strings.SplitSeq(query, "&") {
		typed, _, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(typed)
		if err != nil {
			return errors.New("what follows the question mark is not parameters")
		}
		lower := strings.ToLower(name)
		for _, secret := range []string{"key", "secret", "token", "pass"} {
			if strings.Contains(lower, secret) {
				return errCredentials
			}
		}
		if unknown == "" && pair != "" && !slices.Contains(parameters, name) {
			unknown = name
		}
	}
	if unknown != "" {
		return fmt.Errorf("there is no parameter %q", unknown)
	}
	return nil
}

const maxPrefix = 200 // bytes

// readPrefix makes the prefix of all keys of a path: no name in it is one that
// a store or a tool would take for something else.
func readPrefix(path string) (string, error) {
	path = strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/")
	if path == "" {
		return "", nil
	}
	if len(path) > maxPrefix {
		return "", fmt.Errorf("the prefix has %d bytes, at most %d", len(path), maxPrefix)
	}
	for segment := range strings.SplitSeq(path, "/") {
		odd := strings.Trim(segment, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
		if segment == "" || odd != "" || strings.Trim(segment, ".") == "" {
			return "", errors.New("the prefix is not names of A-Z, a-z, 0-9, -, _ and . between slashes")
		}
	}
	return path + "/", nil
}

// take reads the parameters; their values are not shown, since what is wrong
// may be a secret.
func (p *place) take(values url.Values) error {
	for name, given := range values {
		switch {
		case len(given) > 1:
			return fmt.Errorf("%s is given twice", name)
		case given[0] == "":
			return fmt.Errorf("%s is empty", name)
		}
	}
	if err := p.takeEndpoint(values.Get("endpoint")); err != nil {
		return err
	}
	if region := values.Get("region"); region != "" {
		p.region = region
	}
	if strings.Trim(p.region, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" || len(p.region) > 64 {
		return errors.New("region is not the name of a region")
	}
	if p.ca = values.Get("ca"); p.ca != "" && !p.secure {
		return errors.New("ca is for an endpoint with https")
	}
	switch values.Get("path_style") {
	case "":
	case "true":
		p.style = minio.BucketLookupPath
	case "false":
		p.style = minio.BucketLookupDNS
	default:
		return errors.New("path_style is true or false")
	}
	return nil
}

func (p *place) takeEndpoint(endpoint string) error {
	if endpoint == "" {
		return errors.New("endpoint is missing")
	}
	e, err := url.Parse(endpoint)
	if err != nil {
		return errors.New("endpoint is not a URL")
	}
	if e.User != nil {
		return errCredentials
	}
	if e.Scheme != "https" && e.Scheme != "http" {
		return errors.New("endpoint does not begin with https:// or http://")
	}
	if e.Hostname() == "" || strings.TrimSuffix(e.Path, "/") != "" || e.RawQuery != "" || e.Fragment != "" {
		return errors.New("endpoint is a host and a port alone")
	}
	p.host, p.secure = e.Host, e.Scheme == "https"
	return nil
}

// String is the place without anything secret.
func (p place) String() string {
	return fmt.Sprintf("s3://%s/%s at %s", p.bucket, p.prefix, p.endpoint())
}

// endpoint is the endpoint's URL.
func (p place) endpoint() string {
	if p.secure {
		return "https://" + p.host
	}
	return "http://" + p.host
}
