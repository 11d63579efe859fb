package did

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/windows"
)

func TestReadKeyFileRefusesFilesOpenToOthers(t *testing.T) {
	path := privateFile(t, jwkEd25519, 0o600)
	if _, err := ReadKeyFile(path); err != nil {
		t.Fatalf("the owner's alone: %v", err)
	}
	everyone, err := windows.SecurityDescriptorFromString("D:(A;;FA;;;WD)")
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := everyone.DACL()
	if err != nil {
		t.Fatal(err)
	}
	if err := windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION, nil, nil, list, nil); err != nil {
		t.Fatal(err)
	}
	keys, err := ReadKeyFile(path)
	if !errors.Is(err, ErrKeyFileMode) || keys != nil || !strings.Contains(err.Error(), `run: icacls "`+path+`" /inheritance:r`) {
		t.Errorf("%v, %v; want ErrKeyFileMode and what to do", keys, err)
	}
}
