package cargo

import (
	"bufio"
	"compress/gzip"
	"errors"
	"io"
	"strings"
)

// Identify returns the name and version that the Cargo.toml in a .crate states,
// for who has only the file: the name of its folder is not looked at, nor any
// other rule, which is for Inspect. It reads no further than the manifest.
// Errors match ErrTooLarge, ErrTarball, ErrManifest, ErrName or ErrVersion, or are those of r.
func Identify(r io.Reader, l Limits) (name, version string, err error) {
	l = l.orDefault()
	in := &crateInput{r: r, most: l.CrateBytes}
	member, err := gzip.NewReader(bufio.NewReader(in))
	if err != nil {
		return "", "", tarballProblem(err)
	}
	archive := tarReader{r: &unpackMeter{r: member, in: in, l: l}}
	for range l.Entries {
		entry, err := archive.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", "", tarballProblem(err)
		}
		if _, below, ok := strings.Cut(entry.path, "/"); !ok || below != "Cargo.toml" || entry.folder {
			continue
		}
		data, err := io.ReadAll(io.LimitReader(&archive, maxManifestBytes))
		if err != nil {
			return "", "", tarballProblem(err)
		}
		return stated(data)
	}
	return "", "", problem(ErrManifest, CodeManifest, "the crate holds no Cargo.toml; build it with `cargo package`")
}

// stated reads name and version from a manifest.
func stated(manifest []byte) (name, version string, err error) {
	root, err := manifestFile.parse(manifest)
	if err != nil {
		return "", "", err
	}
	pkg, err := root.sub("package")
	if err != nil {
		return "", "", err
	}
	if name, err = pkg.str("name"); err != nil {
		return "", "", err
	}
	if version, err = pkg.str("version"); err != nil {
		return "", "", err
	}
	if err := ValidateName(name); err != nil {
		return "", "", err
	}
	if _, err := ParseVersion(version); err != nil {
		return "", "", err
	}
	return name, version, nil
}
