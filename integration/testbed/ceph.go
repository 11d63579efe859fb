package testbed

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

//go:embed ceph.conf
var cephConf string

// Ceph starts a Ceph of one node with an S3 gateway, over bluestore, that ends
// with the test. It is ready in about 8 seconds, and in 16 after it was killed.
func Ceph(t testing.TB) *S3Server {
	t.Helper()
	return newCeph(t).begin(t, false)
}

var sharedCeph shared

// SharedCeph is one Ceph for all tests of the process, with buckets of their
// own. It must not be stopped.
func SharedCeph(t testing.TB) *S3Server {
	t.Helper()
	return sharedCeph.get(t, func(t testing.TB) *S3Server { return newCeph(t).begin(t, true) })
}

// ceph is a cluster that comes up.
type ceph struct {
	*daemons
	t    testing.TB
	port int
	fsid string
	osd  string // the id that the monitor gave it
}

func newCeph(t testing.TB) *S3Server {
	t.Helper()
	debian(t, []string{"ceph", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool"}, []string{"ceph-mon", "ceph-osd", "radosgw", "ceph-common"})
	port, release := ports(t)
	c := &ceph{daemons: newDaemons(t, "ceph"), t: t, port: port, fsid: uuid()}
	s := &S3Server{
		Endpoint: "http://" + address(c.gateway()), AccessKey: "AKTEST", SecretKey: "SKTEST",
		daemons: c.daemons, front: "rgw", ready: 2 * time.Minute, release: release,
	}
	if err := c.make(s); err != nil {
		said := c.said("mon") + "\n" + c.said("osd") + "\n" + c.said("rgw")
		c.remove()
		release()
		t.Fatalf("testbed: bring up Ceph: %v\n%s", err, said)
	}
	s.limit = c.limit
	s.user = func(bucket, policy string) ([]string, error) { return c.user(s, bucket, policy) }
	s.start = []func() error{c.startMon, c.startOSD, c.startGateway}
	return s
}

// Of the block's ports two are the monitor's, one the gateway's, the rest the OSD's.
func (c *ceph) gateway() int { return c.port + 2 }

func (c *ceph) monitors() string {
	return fmt.Sprintf("[v2:%s/0,v1:%s/0]", address(c.port), address(c.port+1))
}

// make makes the cluster, its pools and the user.
func (c *ceph) make(s *S3Server) error {
	for _, folder := range []string{"mon", "osd", "run", "log", "rgw"} {
		if err := os.Mkdir(filepath.Join(c.folder, folder), 0o755); err != nil {
			return err
		}
	}
	conf := strings.NewReplacer(
		"%FSID%", c.fsid, "%MON%", c.monitors(), "%FOLDER%", c.folder, "%RGW%", address(c.gateway()),
		"%OSD_FIRST%", strconv.Itoa(c.port+3), "%OSD_LAST%", strconv.Itoa(c.port+portsPerBlock-1),
	).Replace(cephConf)
	if err := os.WriteFile(c.path("ceph.conf"), []byte(conf), 0o644); err != nil {
		return err
	}
	if err := c.makeMon(); err != nil {
		return err
	}
	if err := c.makeOSD(); err != nil {
		return err
	}
	if err := c.makePools(); err != nil {
		return err
	}
	if err := c.startGateway(); err != nil {
		return err
	}
	_, err := c.run("", "radosgw-admin", "user", "create", "--uid", "test", "--display-name", "test", "--access-key", s.AccessKey, "--secret-key", s.SecretKey)
	return err
}

func (c *ceph) path(name string) string { return filepath.Join(c.folder, name) }

func (c *ceph) env() []string {
	return []string{"CEPH_CONF=" + c.path("ceph.conf"), "HOME=" + c.folder}
}

// run runs one of Ceph's commands to its end, at most two minutes.
func (c *ceph) run(input, program string, args ...string) (string, error) {
	cmd := exec.Command("timeout", append([]string{"120", program}, args...)...)
	cmd.Dir, cmd.Env, cmd.Stdin = c.folder, append(os.Environ(), c.env()...), strings.NewReader(input)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", program, strings.Join(args, " "), err, out, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

func (c *ceph) makeMon() error {
	if _, err := c.run("", "monmaptool", "--create", "--fsid", c.fsid, "--addv", "a", c.monitors(), c.path("monmap")); err != nil {
		return err
	}
	if _, err := c.run("", "ceph-mon", "-i", "a", "--mkfs", "--monmap", c.path("monmap")); err != nil {
		return err
	}
	if err := c.startMon(); err != nil {
		return err
	}
	return until(time.Minute, c.exited("mon"), func() error {
		_, err := c.run("", "ceph", "--connect-timeout", "10", "-s")
		return err
	})
}

func (c *ceph) makeOSD() error {
	id := uuid()
	osd, err := c.run("", "ceph", "osd", "new", id)
	if err != nil {
		return err
	}
	c.osd = osd
	if _, err := c.run("", "ceph-osd", "-i", osd, "--mkfs", "--osd-uuid", id); err != nil {
		return err
	}
	if err := c.startOSD(); err != nil {
		return err
	}
	return until(time.Minute, c.exited("osd"), func() error {
		state, err := c.run("", "ceph", "osd", "stat")
		if err == nil && !strings.Contains(state, "1 up") {
			err = fmt.Errorf("osd stat: %s", state)
		}
		return err
	})
}

// makePools makes what the gateway would make one by one, slowly, at first use;
// with one process for all of them, since each takes 0.4 s to begin.
func (c *ceph) makePools() error {
	var commands strings.Builder
	for _, pool := range []string{
		".rgw.root", "default.rgw.log", "default.rgw.control", "default.rgw.meta",
		"default.rgw.buckets.index", "default.rgw.buckets.data", "default.rgw.buckets.non-ec",
	} {
		fmt.Fprintf(&commands, "osd pool create %s 4\nosd pool application enable %s rgw\n", pool, pool)
	}
	_, err := c.run(commands.String(), "ceph")
	return err
}

// limit sets a bucket's quota.
func (c *ceph) limit(bucket string, objects int) error {
	_, err := c.run("", "radosgw-admin", "quota", "set", "--quota-scope=bucket", "--bucket", bucket, "--max-objects", strconv.Itoa(objects))
	if err == nil {
		_, err = c.run("", "radosgw-admin", "quota", "enable", "--quota-scope=bucket", "--bucket", bucket)
	}
	return err
}

// user makes a user and gives them the policy in the bucket's name.
func (c *ceph) user(s *S3Server, bucket, policy string) ([]string, error) {
	id := uuid()
	if _, err := c.run("", "radosgw-admin", "user", "create", "--uid", id, "--display-name", id, "--access-key", id, "--secret-key", id); err != nil {
		return nil, err
	}
	var statements map[string]any
	if err := json.Unmarshal([]byte(policy), &statements); err != nil {
		return nil, err
	}
	for _, statement := range statements["Statement"].([]any) {
		statement.(map[string]any)["Principal"] = map[string]any{"AWS": []string{"arn:aws:iam:::user/" + id}}
	}
	text, err := json.Marshal(statements)
	if err != nil {
		return nil, err
	}
	client, err := s.Client()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := client.SetBucketPolicy(ctx, bucket, string(text)); err != nil {
		return nil, err
	}
	return []string{"AWS_ACCESS_KEY_ID=" + id, "AWS_SECRET_ACCESS_KEY=" + id, "AWS_SESSION_TOKEN="}, nil
}

func (c *ceph) startMon() error { return c.start("mon", c.env(), "ceph-mon", "-i", "a", "-f") }

func (c *ceph) startOSD() error { return c.start("osd", c.env(), "ceph-osd", "-i", c.osd, "-f") }

func (c *ceph) startGateway() error {
	return c.start("rgw", c.env(), "radosgw", "-n", "client.rgw.a", "-f")
}

// uuid is a random one (version 4).
func uuid() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
