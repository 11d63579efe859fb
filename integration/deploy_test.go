package integration

import (
	"debug/elf"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// What is here is held against the program without an engine for containers, which these
// machines have not: files are read as such an engine reads them, and what they say is run.

// composeFile is docker-compose.yml, as far as it goes: what is not here is a mistake.
type composeFile struct {
	Name     string                    `yaml:"name"`
	Hardened yaml.Node                 `yaml:"x-hardened"`
	Registry yaml.Node                 `yaml:"x-registry"`
	Services map[string]composeService `yaml:"services"`
	Networks map[string]struct {
		Internal bool `yaml:"internal"`
		IPAM     struct {
			Config []struct {
				Subnet string `yaml:"subnet"`
			} `yaml:"config"`
		} `yaml:"ipam"`
	} `yaml:"networks"`
	Volumes map[string]struct{} `yaml:"volumes"`
	Secrets map[string]struct {
		File string `yaml:"file"`
	} `yaml:"secrets"`
}

type composeService struct {
	Image string `yaml:"image"`
	Build struct {
		Context string            `yaml:"context"`
		Args    map[string]string `yaml:"args"`
	} `yaml:"build"`
	User        string            `yaml:"user"`
	Entrypoint  []string          `yaml:"entrypoint"`
	Command     []string          `yaml:"command"`
	Environment map[string]string `yaml:"environment"`
	Secrets     []string          `yaml:"secrets"`
	Volumes     []string          `yaml:"volumes"`
	Tmpfs       []string          `yaml:"tmpfs"`
	Ports       []string          `yaml:"ports"`
	Networks    composeNetworks   `yaml:"networks"`
	DependsOn   map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
	Healthcheck struct {
		Test        []string `yaml:"test"`
		Interval    string   `yaml:"interval"`
		Timeout     string   `yaml:"timeout"`
		Retries     int      `yaml:"retries"`
		StartPeriod string   `yaml:"start_period"`
		Disable     bool     `yaml:"disable"`
	} `yaml:"healthcheck"`
	Deploy struct {
		Resources struct {
			Limits struct {
				CPUs   string `yaml:"cpus"`
				Memory string `yaml:"memory"`
				PIDs   int    `yaml:"pids"`
			} `yaml:"limits"`
		} `yaml:"resources"`
	} `yaml:"deploy"`
	Restart     string   `yaml:"restart"`
	ReadOnly    bool     `yaml:"read_only"`
	CapDrop     []string `yaml:"cap_drop"`
	SecurityOpt []string `yaml:"security_opt"`
	Logging     struct {
		Driver  string            `yaml:"driver"`
		Options map[string]string `yaml:"options"`
	} `yaml:"logging"`
	SHMSize         string `yaml:"shm_size"`
	StopSignal      string `yaml:"stop_signal"`
	StopGracePeriod string `yaml:"stop_grace_period"`
}

// composeNetworks are a list of names, or names with an address.
type composeNetworks map[string]string

func (n *composeNetworks) UnmarshalYAML(node *yaml.Node) error {
	var names []string
	*n = composeNetworks{}
	if node.Decode(&names) == nil {
		for _, name := range names {
			(*n)[name] = ""
		}
		return nil
	}
	var addressed map[string]struct {
		Address string `yaml:"ipv4_address"`
	}
	err := node.Decode(&addressed)
	for name, network := range addressed {
		(*n)[name] = network.Address
	}
	return err
}

func readCompose(t testing.TB) composeFile {
	t.Helper()
	f, err := os.Open("../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var c composeFile
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

// serveVariables are the environment variables that serve knows.
func serveVariables(t testing.TB) map[string]bool {
	t.Helper()
	u := newUser(t)
	known := map[string]bool{"ALN_HOME": true, "PGPASSFILE": true, "AWS_SHARED_CREDENTIALS_FILE": true, "PATH": true}
	for _, match := range regexp.MustCompile(`--([a-z][a-z-]*)`).FindAllStringSubmatch(must(t, u.aln(u.folder, "serve", "--help")).stdout, -1) {
		known["ALN_"+strings.ToUpper(strings.ReplaceAll(match[1], "-", "_"))] = true
	}
	return known
}

func TestEveryServiceIsHardenedAndComplete(t *testing.T) {
	c := readCompose(t)
	if len(c.Services) != 7 {
		t.Errorf("there are %d services", len(c.Services))
	}
	dockerfile := readDockerfile(t, "Dockerfile")
	for name, s := range c.Services {
		once := s.Restart == "no"
		limits := s.Deploy.Resources.Limits
		for what, ok := range map[string]bool{
			"its root file system is not read-only": s.ReadOnly, "it keeps capabilities": slices.Equal(s.CapDrop, []string{"ALL"}),
			"it may gain privileges": slices.Contains(s.SecurityOpt, "no-new-privileges:true"), "it has no limits": limits.CPUs != "" && limits.Memory != "" && limits.PIDs > 0,
			"it is not started again": once || s.Restart == "unless-stopped", "its log has no bound": s.Logging.Options["max-size"] != "",
			"nobody asks for its health": once == s.Healthcheck.Disable && (once || len(s.Healthcheck.Test) > 0 || s.Build.Context == "." && dockerfile.health != nil),
			"it is on no network":        len(s.Networks) > 0,
		} {
			if !ok {
				t.Errorf("%s: %s", name, what)
			}
		}
		for _, secret := range s.Secrets {
			if _, ok := c.Secrets[secret]; !ok {
				t.Errorf("%s: there is no secret %s", name, secret)
			}
		}
		for other, on := range s.DependsOn {
			there, ok := c.Services[other]
			if !ok || (on.Condition == "service_completed_successfully") != (there.Restart == "no") {
				t.Errorf("%s waits for %s until %q", name, other, on.Condition)
			}
		}
		for variable, value := range s.Environment {
			if strings.Contains(strings.ToUpper(variable), "PASSWORD") && !strings.HasSuffix(variable, "_FILE") {
				t.Errorf("%s: %s is a secret in the environment", name, variable)
			}
			if file, ok := strings.CutPrefix(value, "/run/secrets/"); ok && !slices.Contains(s.Secrets, file) {
				t.Errorf("%s: %s names %s, which it is not given", name, variable, value)
			}
		}
		if name != "proxy" && len(s.Ports) > 0 {
			t.Errorf("%s can be reached from outside", name)
		}
	}
	if !c.Networks["back"].Internal {
		t.Error("what stands behind the proxy can reach out")
	}
}

// The replicas are given what serve knows, and what the other services and nginx call so.
func TestTheReplicasAreWiredToTheirEngines(t *testing.T) {
	c, known := readCompose(t), serveVariables(t)
	one, two := c.Services["registry-1"], c.Services["registry-2"]
	if !maps.Equal(one.Environment, two.Environment) || !maps.Equal(one.Environment, c.Services["migrate"].Environment) || one.Image != two.Image {
		t.Error("the replicas and what migrates for them differ")
	}
	for _, from := range []map[string]string{one.Environment, readDockerfile(t, "Dockerfile").env} {
		for variable := range from {
			if !known[variable] {
				t.Errorf("serve knows no %s", variable)
			}
		}
	}
	db, err := url.Parse(one.Environment["ALN_DB"])
	if err != nil {
		t.Fatal(err)
	}
	database := c.Services["database"].Environment
	if db.Hostname() != "database" || db.User.Username() != database["POSTGRES_USER"] || strings.TrimPrefix(db.Path, "/") != database["POSTGRES_DB"] {
		t.Errorf("the database is %s, and is asked for as %s", database, db)
	}
	blobs, err := url.Parse(one.Environment["ALN_BLOBS"])
	if err != nil {
		t.Fatal(err)
	}
	if made := c.Services["bucket"].Entrypoint; made[len(made)-1] != blobs.Host || made[len(made)-2] != blobs.Query().Get("endpoint") {
		t.Errorf("the bucket made is %q, that asked for %s", made, blobs)
	}
	var upstreams []string
	for _, match := range regexp.MustCompile(`(?m)^\s*server (\S+):(\d+) `).FindAllStringSubmatch(readRepository(t, "deploy/nginx.conf"), -1) {
		upstreams = append(upstreams, match[1])
		if _, port, _ := net.SplitHostPort(readDockerfile(t, "Dockerfile").env["ALN_LISTEN"]); port != match[2] {
			t.Errorf("nginx asks port %s, the image listens on %s", match[2], port)
		}
	}
	if want := []string{one.Networks["back"], two.Networks["back"]}; !slices.Equal(upstreams, want) {
		t.Errorf("nginx asks %q, the replicas are at %q", upstreams, want)
	}
}

// dockerfile is what of a Dockerfile is held against the program.
type dockerfile struct {
	runs, health []string
	env          map[string]string
	// last are the instructions of the last stage, without ENV.
	last []string
}

func readDockerfile(t testing.TB, name string) (d dockerfile) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.ReplaceAll(string(raw), "\\\n", ""), "\n") {
		instruction, rest, _ := strings.Cut(line, " ")
		switch instruction {
		case "", "#":
			continue
		case "FROM":
			d.last, d.env = nil, map[string]string{}
		case "RUN":
			d.runs = append(d.runs, rest)
		case "ENV":
			for _, pair := range strings.Fields(rest) {
				variable, value, _ := strings.Cut(pair, "=")
				d.env[variable] = value
			}
		case "HEALTHCHECK":
			_, command, _ := strings.Cut(rest, "CMD ")
			if err := yaml.Unmarshal([]byte(command), &d.health); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
		if instruction != "ENV" {
			d.last = append(d.last, line)
		}
	}
	return d
}

// The image is built by the commands that stand there: one static program, for
// nobody's user, in a folder of which all else is named.
func TestTheImageIsOneStaticProgram(t *testing.T) {
	t.Parallel()
	d := readDockerfile(t, "Dockerfile")
	i := slices.IndexFunc(d.runs, func(run string) bool { return strings.Contains(run, "go build") })
	if i < 0 {
		t.Fatalf("nothing is built: %q", d.runs)
	}
	root := t.TempDir()
	for _, command := range d.runs[i:] {
		cmd := exec.Command("sh", "-euc", strings.ReplaceAll(command, "/root-fs", root))
		cmd.Dir, cmd.Env = "..", append(os.Environ(), "VERSION=v1.2.3")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	program := filepath.Join(root, "usr/local/bin/aln-registry")
	file, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, part := range file.Progs {
		if part.Type == elf.PT_INTERP || part.Type == elf.PT_DYNAMIC {
			t.Errorf("the program is not static: it has a part %s", part.Type)
		}
	}
	u := newUser(t)
	wantSays(t, must(t, u.run(u.folder, program, "version")).stdout, "v1.2.3")
	for path, mode := range map[string]os.FileMode{"tmp": os.ModeDir | os.ModeSticky | 0o777, "data": os.ModeDir | 0o700, "etc/ssl/certs/ca-certificates.crt": 0o644} {
		info, err := os.Stat(filepath.Join(root, path))
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	for _, want := range []string{"FROM scratch", "USER 65532:65532", `ENTRYPOINT ["/usr/local/bin/aln-registry"]`, `CMD ["serve"]`} {
		if !slices.Contains(d.last, want) && want != "FROM scratch" {
			t.Errorf("the image lacks %s: %q", want, d.last)
		}
	}
	if d.health[0] != "/usr/local/bin/aln-registry" {
		t.Errorf("the image, which has no other program, is asked by %q", d.health)
	}
	mustFail(t, u.run(u.folder, program, d.health[1:]...), "does not answer")
}

// The store's image has the very MinIO that the tests run.
func TestTheStoresImageIsTheOneTested(t *testing.T) {
	if file := readRepository(t, "deploy/minio/Dockerfile"); !strings.Contains(file, "go install -trimpath "+testbed.MinIOPackage+"\n") {
		t.Errorf("it is not %s:\n%s", testbed.MinIOPackage, file)
	}
}

// systemd finds nothing wrong with the unit, and little that it lets the program do.
func TestTheUnitIsValidAndHardened(t *testing.T) {
	testbed.Program(t, "systemd-analyze", "systemd")
	known := serveVariables(t)
	unit := strings.ReplaceAll(readRepository(t, "deploy/aln-registry.service"), "/usr/local/bin/aln-registry", binary)
	for _, match := range regexp.MustCompile(`(?m)^Environment=(\w+)=`).FindAllStringSubmatch(unit, -1) {
		if !known[match[1]] {
			t.Errorf("serve knows no %s", match[1])
		}
	}
	folder := t.TempDir()
	writeFiles(t, folder, map[string]string{"aln-registry.service": unit})
	u := newUser(t)
	path := filepath.Join(folder, "aln-registry.service")
	if r := must(t, u.run(folder, "systemd-analyze", "verify", "--man=no", path)); strings.Contains(r.stderr, "aln-registry.service") {
		t.Errorf("%s", r)
	}
	// In tenths: what is not taken away is the network, which it is for.
	must(t, u.run(folder, "systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=15", path))
}
