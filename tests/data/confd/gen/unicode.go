//go:build ignore

// Writes src/confd/unicode_tab.h: which characters Go's templates take in names, and which Go's %q
// prints as they are. Run: go run tests/data/confd/gen/unicode.go >src/confd/unicode_tab.h
package main

import (
	"fmt"
	"unicode"
)

func table(name, what string, has func(rune) bool) {
	fmt.Printf("\n/* %s */\nstatic const struct unicode_range %s[] = {\n", what, name)
	column := 0
	for r := rune(0x80); r <= unicode.MaxRune; r++ {
		if !has(r) {
			continue
		}
		first := r
		for r < unicode.MaxRune && has(r+1) {
			r++
		}
		item := fmt.Sprintf("{0x%x, 0x%x},", first, r)
		if column+len(item) > 94 {
			fmt.Println()
			column = 0
		}
		if column == 0 {
			fmt.Print("    ")
		} else {
			fmt.Print(" ")
			column++
		}
		fmt.Print(item)
		column += len(item)
	}
	fmt.Println("\n};")
}

func main() {
	fmt.Printf("/* Made by tests/data/confd/gen/unicode.go from Unicode %s. */\n", unicode.Version)
	fmt.Println("#pragma once\n\n#include <stdint.h>\n\nstruct unicode_range {\n    uint32_t first, last;\n};")
	fmt.Println("\n/* clang-format off */")
	table("unicode_alnum", "Letters and decimal digits from U+0080 on.", func(r rune) bool {
		return unicode.IsLetter(r) || unicode.IsDigit(r)
	})
	table("unicode_print", "What prints, from U+0080 on.", unicode.IsPrint)
	fmt.Println("/* clang-format on */")
}
