package integration

import (
	"bufio"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "phoenix-lab.org/aln-registry"

// mayImport is the direction of dependencies (docs/ARCHITECTURE.md, "The
// house"): each package and the packages of ours that it may import. A package
// that is not here fails the test, so a new one has to be placed.
var mayImport = map[string][]string{
	"durable":                     {},
	"did":                         {"durable"},
	"storage":                     {},
	"storage/blobtest":            {"storage"},
	"storage/disk":                {"durable", "storage"},
	"storage/s3":                  {"durable", "storage"},
	"storage/catalog":             {"durable", "migrations", "storage"},
	"storage/catalog/catalogtest": {"storage", "storage/catalog"},
	"migrations":                  {},
	"registry/cargo":              {},
	"registry/content":            {},
	"registry/particle":           {"did", "storage"},
	"registry/translog":           {"storage"},
	"registry/record":             {"did", "registry/cargo", "registry/particle", "storage"},
	"registry/state":              {"did", "registry/cargo", "registry/particle", "registry/record", "storage"},
	"registry/policy":             {"did", "registry/cargo", "registry/particle"},
	"registry/verify":             {"did", "registry/cargo", "registry/record", "registry/state", "registry/translog", "storage"},
	"registry": {
		"did", "durable", "registry/cargo", "registry/content", "registry/particle", "registry/policy", "registry/record",
		"registry/state", "registry/translog", "registry/verify", "storage", "storage/catalog",
	},
	"server": {
		"did", "durable", "registry", "registry/cargo", "registry/particle", "registry/policy", "registry/record", "registry/state",
		"registry/translog", "registry/verify", "storage",
	},
	"web": {
		"did", "registry", "registry/cargo", "registry/particle", "registry/policy", "registry/record", "registry/state", "storage",
	},
	"cratesio-proxy": {"durable", "registry", "registry/cargo", "storage"},
	"client": {
		"did", "durable", "registry/cargo", "registry/content", "registry/particle", "registry/policy", "registry/record",
		"registry/translog", "registry/verify", "storage",
	},
	"client/cargoconfig":  {"durable"},
	"integration/testbed": {"durable"},
}

// wireEverything may import any package.
var wireEverything = []string{"cmd/aln-registry", "integration"}

// pure packages do no I/O of their own: they import none of sideEffects.
var (
	pure = []string{
		"registry/cargo", "registry/content", "registry/particle", "registry/translog", "registry/record", "registry/state", "registry/policy",
		"registry/verify",
	}
	sideEffects = []string{"net", "net/http", "os", "os/exec", "database/sql", "crypto/rand", "math/rand", "math/rand/v2", "syscall", "log"}
)

type goPackage struct {
	ImportPath string
	Imports    []string
	Doc        string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Doc", module+"/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var packages []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestDependenciesPointOneWay(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		seen[name] = true
		if slices.Contains(wireEverything, name) {
			continue
		}
		allowed, ok := mayImport[name]
		if !ok {
			t.Errorf("package %s has no place in the layout", name)
			continue
		}
		for _, imported := range p.Imports {
			if own, ours := strings.CutPrefix(imported, module+"/"); ours && !slices.Contains(allowed, own) {
				t.Errorf("%s imports %s, which the layout does not allow", name, own)
			}
			if slices.Contains(pure, name) && slices.Contains(sideEffects, imported) {
				t.Errorf("%s is pure, but imports %s", name, imported)
			}
		}
	}
	for name := range mayImport {
		if !seen[name] {
			t.Errorf("the layout names %s, which does not exist", name)
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for _, p := range listPackages(t) {
		if len(p.Doc) < 40 && p.ImportPath != module+"/integration" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// Files stay short, interfaces small, tests never skip, and nothing registers itself.
func TestHouseRules(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != root || name == "data" || name == "bin") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") {
			checkFile(t, path, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

const (
	mostLines   = 600
	mostMethods = 7
)

func checkFile(t *testing.T, path, name string) {
	t.Helper()
	if n := countLines(t, path); n > mostLines {
		t.Errorf("%s has %d lines; at most %d", name, n, mostLines)
	}
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	test := strings.HasSuffix(name, "_test.go")
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.InterfaceType:
			if n.Methods.NumFields() > mostMethods {
				t.Errorf("%s has an interface with %d methods; at most %d", name, n.Methods.NumFields(), mostMethods)
			}
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" && !test {
				t.Errorf("%s has an init function", name)
			}
		case *ast.SelectorExpr:
			if test && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, n.Sel.Name) {
				if x, ok := n.X.(*ast.Ident); ok && (x.Name == "t" || x.Name == "b" || x.Name == "f") {
					t.Errorf("%s skips; a part that is missing must fail the run", name)
				}
			}
		}
		return true
	})
}

func countLines(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for s := bufio.NewScanner(f); s.Scan(); {
		n++
	}
	return n
}
