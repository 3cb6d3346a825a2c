package scenario

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// setting is one number, switch or list of a Config, by its name from there: Faults.CrashEvery.
type setting struct {
	name  string
	value reflect.Value
}

// settings returns what a Config says, in its order, but for the seed and what cannot be written down.
func settings(c *Config) []setting {
	var all []setting
	var walk func(prefix string, v reflect.Value)
	walk = func(prefix string, v reflect.Value) {
		for i := range v.NumField() {
			name, field := prefix+v.Type().Field(i).Name, v.Field(i)
			switch field.Kind() {
			case reflect.Struct:
				walk(name+".", field)
			case reflect.Bool, reflect.Int, reflect.Int64, reflect.Slice:
				all = append(all, setting{name, field})
			}
		}
	}
	walk("", reflect.ValueOf(c).Elem())
	return all
}

// text is how a setting is written: 3, 1m30s, true, order-2+relay, 3+7-9.
func (s setting) text() string {
	if s.value.Kind() != reflect.Slice {
		return fmt.Sprint(s.value)
	}
	var elements []string
	if numbers, ok := s.value.Interface().([]int); ok {
		for len(numbers) > 0 {
			n := 1
			for n < len(numbers) && numbers[n] == numbers[0]+n {
				n++
			}
			elements = append(elements, stretch(numbers[0], numbers[n-1]))
			numbers = numbers[n:]
		}
	}
	if names, ok := s.value.Interface().([]string); ok {
		elements = names
	}
	return strings.Join(elements, "+")
}

// stretch writes the numbers from one to another: 3, or 3-9.
func stretch(from, to int) string {
	if from == to {
		return strconv.Itoa(from)
	}
	return fmt.Sprintf("%d-%d", from, to)
}

// stretches is the reverse, of several.
func stretches(text string) ([]int, error) {
	all := []int{}
	for _, one := range split(text) {
		low, high, ranged := strings.Cut(one, "-")
		from, err := strconv.Atoi(low)
		if err != nil {
			return nil, err
		}
		to := from
		if ranged {
			if to, err = strconv.Atoi(high); err != nil {
				return nil, err
			}
		}
		for n := from; n <= to; n++ {
			all = append(all, n)
		}
	}
	return all, nil
}

// set is the reverse of text.
func (s setting) set(text string) (err error) {
	switch p := s.value.Addr().Interface().(type) {
	case *[]string:
		*p = split(text)
	case *[]int:
		*p, err = stretches(text)
	case *time.Duration:
		*p, err = time.ParseDuration(text)
	case *bool:
		*p, err = strconv.ParseBool(text)
	case *int:
		*p, err = strconv.Atoi(text)
	default:
		err = fmt.Errorf("%T cannot be set", p)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

func split(list string) []string {
	if list == "" {
		return []string{}
	}
	return strings.Split(list, "+")
}

// Difference says how a case differs from the default of its seed, as With reads it: Orders=1,Weather=30s.
func Difference(c Config) string {
	base := Default(c.Seed)
	was := settings(&base)
	var differ []string
	for i, is := range settings(&c) {
		if is.text() != was[i].text() || is.value.Kind() == reflect.Slice && is.value.IsNil() != was[i].value.IsNil() {
			differ = append(differ, is.name+"="+is.text())
		}
	}
	return strings.Join(differ, ",")
}

// With returns the default of a seed, but for what text says.
func With(seed uint64, text string) (Config, error) {
	c := Default(seed)
	all := settings(&c)
	for _, one := range strings.Split(text, ",") {
		if one == "" {
			continue
		}
		name, value, _ := strings.Cut(one, "=")
		i := slices.IndexFunc(all, func(s setting) bool { return s.name == name })
		if i < 0 {
			return c, fmt.Errorf("no setting of the scenario is called %q", name)
		}
		if err := all[i].set(value); err != nil {
			return c, err
		}
	}
	return c, nil
}

// processes returns the names of those that take part.
func (c *Config) processes() []string {
	spare := map[string]bool{"order-2": true, "relay": true, "settlement-2": true, "notification-2": true}
	var all []string
	for _, name := range processes {
		if !spare[name] || slices.Contains(c.Spare, name) {
			all = append(all, name)
		}
	}
	return all
}

// sound reports whether a case is one in which Pabal can keep its promises: whatever is tried beside weather needs the relay,
// whose client is the operator's; plagues come beside orders of order-2, and have keys of their own.
func (c *Config) sound() bool {
	tries := c.Later > 0
	for _, s := range settings(c) {
		tries = tries || s.value.Kind() == reflect.Bool && !strings.Contains(s.name, ".") && s.value.Bool()
	}
	return (!tries || slices.Contains(c.Spare, "relay")) && (!c.Plagues || c.Keys >= 5 && slices.Contains(c.Spare, "order-2"))
}
