package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestClosingIsTold: an error of closing a store reaches the command only if
// it goes into a named result.
func TestClosingIsTold(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") {
			continue
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, file.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.PreorderStack(f, nil, func(n ast.Node, around []ast.Node) bool {
			if d, ok := n.(*ast.DeferStmt); ok && isClosing(d.Call) {
				seen++
				if !hasNamedResult(around) {
					t.Errorf("%s: the result is not named, so the error of closing is lost", set.Position(n.Pos()))
				}
			}
			return true
		})
	}
	if seen == 0 {
		t.Error("no closing was seen; the test looks for the wrong thing")
	}
}

func isClosing(call *ast.CallExpr) bool {
	name, ok := call.Fun.(*ast.Ident)
	return ok && name.Name == "closing"
}

// hasNamedResult looks at the innermost function.
func hasNamedResult(around []ast.Node) bool {
	for _, n := range slices.Backward(around) {
		var f *ast.FuncType
		switch n := n.(type) {
		case *ast.FuncDecl:
			f = n.Type
		case *ast.FuncLit:
			f = n.Type
		default:
			continue
		}
		return f.Results != nil && len(f.Results.List[0].Names) > 0
	}
	return false
}
