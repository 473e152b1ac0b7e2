package rdstest

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// decode fills an input of the SDK from the form of a request. A parameter that
// the model does not have is an error.
func decode(form url.Values, into any) error {
	v := reflect.ValueOf(into).Elem()
	for name, values := range form {
		if name == "Action" || name == "Version" || name == "PreSignedUrl" {
			continue
		}
		if err := assign(v, strings.Split(name, "."), values[0]); err != nil {
			return fmt.Errorf("parameter %s: %w", name, err)
		}
	}
	return nil
}

func assign(v reflect.Value, path []string, text string) error {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return assign(v.Elem(), path, text)
	case reflect.Struct:
		if at, ok := v.Addr().Interface().(*time.Time); ok {
			t, err := time.Parse(time.RFC3339Nano, text)
			*at = t
			return err
		}
		f := v.FieldByName(path[0])
		if !f.IsValid() || !f.CanSet() {
			return fmt.Errorf("there is no %s in the model", path[0])
		}
		return assign(f, path[1:], text)
	case reflect.Slice: // Name.Member.1 or Name.Member.1.Field
		if len(path) < 2 {
			return fmt.Errorf("not a list")
		}
		n, err := strconv.Atoi(path[1])
		if err != nil || n < 1 || n > 1000 {
			return fmt.Errorf("%q is no index", path[1])
		}
		for v.Len() < n {
			v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		}
		return assign(v.Index(n-1), path[2:], text)
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		v.SetBool(b)
		return err
	case reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, 64)
		v.SetInt(n)
		return err
	default:
		return fmt.Errorf("%s is not supported", v.Kind())
	}
	return nil
}

// memberNames are the elements of lists whose name is not that of their type.
var memberNames = map[string]string{
	"AvailabilityZones": "AvailabilityZone", "EventCategories": "EventCategory", "DBParameterGroups": "DBParameterGroup",
	"DBClusterOptionGroupMemberships": "DBClusterOptionGroup", "DBClusters": "DBCluster", "Subnets": "Subnet",
}

// encode writes the fields of an output of the SDK that are set.
func encode(w io.Writer, name string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			encode(w, name, v.Elem())
		}
	case reflect.Struct:
		if at, ok := v.Interface().(time.Time); ok {
			element(w, name, at.UTC().Format("2006-01-02T15:04:05.000Z"))
			return
		}
		fmt.Fprintf(w, "<%s>", name)
		encodeFields(w, v)
		fmt.Fprintf(w, "</%s>", name)
	case reflect.Slice:
		fmt.Fprintf(w, "<%s>", name)
		for i := range v.Len() {
			member := memberNames[name]
			if member == "" {
				member = v.Type().Elem().Name()
			}
			if member == "string" {
				member = strings.TrimSuffix(name, "s")
			}
			encode(w, member, v.Index(i))
		}
		fmt.Fprintf(w, "</%s>", name)
	case reflect.String:
		if v.Len() > 0 {
			element(w, name, v.String())
		}
	default:
		element(w, name, fmt.Sprint(v.Interface()))
	}
}

func encodeFields(w io.Writer, v reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !f.IsExported() || f.Name == "ResultMetadata" || v.Field(i).Kind() == reflect.Slice && v.Field(i).IsNil() {
			continue
		}
		encode(w, f.Name, v.Field(i))
	}
}

func element(w io.Writer, name, text string) {
	fmt.Fprintf(w, "<%s>", name)
	_ = xml.EscapeText(w, []byte(text))
	fmt.Fprintf(w, "</%s>", name)
}
