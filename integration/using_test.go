package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// yamlBlocks are the YAML blocks of docs/USING.md, by the first key of theirs that names a job.
func yamlBlocks(t *testing.T) []map[string]any {
	t.Helper()
	var blocks []map[string]any
	for _, match := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(readRepository(t, "docs/USING.md"), -1) {
		var block map[string]any
		if err := yaml.Unmarshal([]byte(match[1]), &block); err != nil {
			t.Fatalf("%v in\n%s", err, match[1])
		}
		blocks = append(blocks, block)
	}
	if len(blocks) != 4 {
		t.Fatalf("docs/USING.md has %d YAML blocks, want those of GitHub, GitLab, of crates.io through the registry, and of a bare session", len(blocks))
	}
	return blocks
}

// runner is a machine of a CI system: a user without an ALN_HOME, the checkout
// of a project, and what its administrators give it.
type runner struct {
	*user
	checkout, temp, key string
	lab                 *lab
	files               *httptest.Server
	given               map[string]string
}

func newRunner(t *testing.T) *runner {
	t.Helper()
	l := newLab(t)
	return newRunnerOf(t, l, commitProject(t, l))
}

// newRunnerOf is one of l with a project that was committed.
func newRunnerOf(t *testing.T, l *lab, committed map[string]string) *runner {
	t.Helper()
	robot := l.newMember()
	program, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(program)
	r := &runner{user: newUser(t), lab: l, key: textOf(t, filepath.Join(robot.home, "keys", "default.jwk"))}
	r.checkout, r.temp = r.user.checkout(committed), filepath.Join(r.folder, "temp")
	if err := os.MkdirAll(r.temp, 0o755); err != nil {
		t.Fatal(err)
	}
	r.files = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(program) }))
	t.Cleanup(r.files.Close)
	r.given = map[string]string{
		"ALN_REGISTRY": l.url, "ALN_ORIGIN": string(robot.pins()[0].Origin), "ALN_BINARY": r.files.URL + "/aln-registry", "ALN_SHA256": hex.EncodeToString(sum[:]),
	}
	r.extra = []string{"ALN_HOME=", "HOME=" + r.folder}
	return r
}

// setenv sets the variables that a job declares: those that stand for the lab's
// own things to the lab's, the others as they are written.
func (r *runner) setenv(variables any) {
	declared, _ := variables.(map[string]any)
	for name, value := range declared {
		text, _ := value.(string)
		if given, ok := r.given[name]; ok {
			text = given
		}
		text = strings.ReplaceAll(text, "${{ secrets.ALN_KEY }}", r.key)
		text = strings.ReplaceAll(text, "${{ runner.temp }}", r.temp)
		r.extra = append(r.extra, name+"="+text)
	}
}

// shell runs a step as the CI systems do.
func (r *runner) shell(script string) result {
	return r.run(r.checkout, "bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script)
}

// leavesNoKey fails if a private key lies anywhere on the runner, or a session in the server's log.
func (r *runner) leavesNoKey() {
	r.t.Helper()
	secret := privateMember.FindStringSubmatch(r.key)[1]
	for _, folder := range []string{r.temp, r.checkout, r.checkout + ".tmp", filepath.Join(r.folder, ".config"), r.cargoHome} {
		filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return nil // a folder that this job did not make
			}
			if strings.Contains(textOf(r.t, path), secret) {
				r.t.Errorf("%s holds the private key", path)
			}
			return nil
		})
	}
	if strings.Contains(r.lab.log(), "eyJ") {
		r.t.Error("the server's log holds a session")
	}
}

// The job for GitHub Actions, step by step, with real cargo on a real registry.
func TestUsingGitHubJob(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	jobs, _ := yamlBlocks(t)[0]["jobs"].(map[string]any)
	job, _ := jobs["build"].(map[string]any)
	steps, _ := job["steps"].([]any)
	envFile, pathFile := filepath.Join(r.temp, "env"), filepath.Join(r.temp, "path")
	writeFiles(t, r.temp, map[string]string{"env": "", "path": ""})
	r.extra = append(r.extra, "GITHUB_ENV="+envFile, "GITHUB_PATH="+pathFile, "RUNNER_TEMP="+r.temp)
	r.setenv(job["env"])
	ran := 0
	for _, s := range steps {
		step, _ := s.(map[string]any)
		script, ok := step["run"].(string)
		if !ok {
			continue // uses: the checkout, which is there
		}
		before := len(r.extra)
		r.setenv(step["env"])
		must(t, r.shell(script))
		ran++
		r.extra = append(r.extra[:before:before], strings.Fields(textOf(t, envFile))...)
		r.extra = append(r.extra, "PATH="+strings.TrimSpace(textOf(t, pathFile))+":"+os.Getenv("PATH"))
	}
	if ran != 3 {
		t.Errorf("%d steps were run, want 3", ran)
	}
	if _, err := os.Stat(filepath.Join(r.checkout, "target", "debug")); err != nil {
		t.Errorf("nothing was built: %v", err)
	}
	writeFiles(t, r.temp, map[string]string{"env": "", "path": ""}) // GitHub's own, and gone with the job
	r.leavesNoKey()
}

// The job for GitLab, and the one that has nothing but a session.
func TestUsingGitLabJobs(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	job, _ := yamlBlocks(t)[1]["build"].(map[string]any)
	given := filepath.Join(r.folder, "variable") // as GitLab writes a variable of type File
	writeFiles(t, r.folder, map[string]string{"variable": r.key})
	if err := os.Chmod(given, 0o666); err != nil {
		t.Fatal(err)
	}
	r.extra = append(r.extra, "CI_PROJECT_DIR="+r.checkout, "ALN_KEY="+given)
	r.setenv(job["variables"])
	must(t, r.shell(lines(t, job, "before_script")+lines(t, job, "script")))
	must(t, r.shell(lines(t, job, "after_script")))
	r.leavesNoKey()

	job, _ = yamlBlocks(t)[3]["build-with-a-session"].(map[string]any)
	session := newUser(t)
	bare := &runner{user: session, lab: r.lab, key: r.key, given: r.given}
	bare.checkout = filepath.Join(session.folder, "checkout")
	for _, name := range []string{".cargo/config.toml", "Cargo.toml", "Cargo.lock", "src/lib.rs"} {
		writeFiles(t, bare.checkout, map[string]string{name: textOf(t, filepath.Join(r.checkout, name))})
	}
	bare.setenv(job["variables"])
	token := strings.TrimSpace(must(t, r.lab.operator.aln(r.lab.operator.folder, "token", "--lifetime", "30m")).stdout)
	bare.extra = append(bare.extra, "CARGO_REGISTRIES_ALN_TOKEN="+token)
	must(t, bare.shell(lines(t, job, "script")))
}

// The job that takes crates.io through the registry, with real cargo: the key is gone before
// anything is compiled, and crates.io is not asked by the runner.
func TestUsingJobThroughTheRegistry(t *testing.T) {
	t.Parallel()
	l := newUpstreamLab(t)
	u := l.operator
	must(t, u.publish(l.lab, u.crate("shared", "0.1.0", "", "pub fn n() -> u32 { 7 }\n")))
	app := l.needing(u, "itoa", "itoa = \"1\"\nshared = { version = \"0.1.0\", registry = \"aln\" }")
	must(t, u.cargo(app, "generate-lockfile"))
	committed := map[string]string{}
	for _, name := range []string{".cargo/config.toml", "Cargo.toml", "Cargo.lock", "src/lib.rs"} {
		committed[name] = textOf(t, filepath.Join(app, name))
	}
	r := newRunnerOf(t, l.lab, committed)
	job, _ := yamlBlocks(t)[2]["build-through-the-registry"].(map[string]any)
	given := filepath.Join(r.folder, "variable") // as GitLab writes a variable of type File
	writeFiles(t, r.folder, map[string]string{"variable": r.key})
	r.extra = append(r.extra, "CI_PROJECT_DIR="+r.checkout, "ALN_KEY="+given)
	r.setenv(job["variables"])
	done := must(t, r.shell(lines(t, job, "before_script")+lines(t, job, "script")))
	wantSays(t, done.stdout, "crates-io: first seen ", "0 failed, 0 from registries not known", "note: of 1 crate of crates.io")
	if config := textOf(t, filepath.Join(r.checkout, ".cargo", "config.toml")); config != committed[".cargo/config.toml"] {
		t.Errorf("the job changed what is committed:\n%s", config)
	}
	must(t, r.shell(lines(t, job, "after_script")))
	r.leavesNoKey()
}

// lines are the commands of a part of a GitLab job, one a line.
func lines(t *testing.T, job map[string]any, part string) string {
	t.Helper()
	list, _ := job[part].([]any)
	var script strings.Builder
	for _, item := range list {
		line, ok := item.(string)
		if !ok {
			t.Fatalf("%s holds %v, which is no command", part, item)
		}
		script.WriteString(line + "\n")
	}
	if script.Len() == 0 {
		t.Fatalf("the job has no %s", part)
	}
	return script.String()
}

// Commands and flags that docs/USING.md shows exist.
func TestUsingNamesCommandsThatExist(t *testing.T) {
	u := newUser(t)
	seen := map[string]bool{}
	for _, match := range regexp.MustCompile("(?m)(?:`|^    (?:\\$ )?|\\$\\()aln-registry ((?:[a-z]+ ?){1,2})").FindAllStringSubmatch(readRepository(t, "docs/USING.md"), -1) {
		command := strings.Fields(match[1])
		if command[0] != "key" && command[0] != "member" && command[0] != "log" {
			command = command[:1]
		}
		if name := strings.Join(command, " "); !seen[name] {
			seen[name] = true
			help := must(t, u.aln(u.folder, append(command, "--help")...))
			wantSays(t, help.stdout, "aln-registry "+name)
		}
	}
	for _, command := range []string{"login", "token", "doctor", "verify", "completion", "log check", "key new", "member add"} {
		if !seen[command] {
			t.Errorf("docs/USING.md does not show %s", command)
		}
	}
}
