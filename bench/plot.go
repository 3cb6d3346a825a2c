package main

import (
	"image/color"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	_ "gonum.org/v1/plot/vg/vgsvg" // its format
)

// bars is a plot: a bar for each name, of one piece or of several, the first name on top.
type bars struct {
	title, axis string
	names       []string
	pieces      []piece
	low, high   []float64 // of what was measured, by name; nil: not shown
	log         bool      // a logarithmic axis, and points
}

type piece struct {
	name   string
	values []float64
}

var barColors = []color.Color{
	color.RGBA{R: 0x2f, G: 0x5d, B: 0x8a, A: 0xff}, color.RGBA{R: 0xe0, G: 0x8e, B: 0x2c, A: 0xff}, color.RGBA{R: 0x7a, G: 0xa9, B: 0x74, A: 0xff},
}

const barWidth = 14 // points

// save draws into dir and notes the file for the page.
func (b *bench) save(name string, p bars) error {
	if b.page == "" {
		return nil
	}
	chart := plot.New()
	chart.Title.Text, chart.X.Label.Text = p.title, p.axis
	chart.Legend.Top = false
	names := slices.Clone(p.names)
	slices.Reverse(names)
	if err := addPieces(chart, p); err != nil {
		return err
	}
	if p.low != nil {
		if err := addRanges(chart, p); err != nil {
			return err
		}
	}
	chart.NominalY(names...)
	if p.log {
		chart.X.Scale, chart.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	} else {
		chart.X.Min = 0
	}
	file := strings.TrimSuffix(b.page, filepath.Ext(b.page)) + "-" + name + ".svg"
	b.plots = append(b.plots, "!["+p.title+"]("+filepath.Base(file)+")")
	return chart.Save(7*vg.Inch, vg.Points(float64(80+28*len(names))), file)
}

// addPieces draws pieces one behind the other; as points on a logarithmic scale, where lengths do not add up.
func addPieces(chart *plot.Plot, p bars) error {
	var below *plotter.BarChart
	for i, part := range p.pieces {
		values := slices.Clone(part.values)
		slices.Reverse(values)
		shade := barColors[i%len(barColors)]
		var thumbnail plot.Thumbnailer
		if p.log {
			points := make(plotter.XYs, len(values))
			for n, v := range values {
				points[n] = plotter.XY{X: v, Y: float64(n)}
			}
			scatter, err := plotter.NewScatter(points)
			if err != nil {
				return err
			}
			scatter.Shape, scatter.Color, scatter.Radius = draw.CircleGlyph{}, shade, vg.Points(barWidth/3)
			chart.Add(scatter)
			thumbnail = scatter
		} else {
			bar, err := plotter.NewBarChart(plotter.Values(values), vg.Points(barWidth))
			if err != nil {
				return err
			}
			bar.Horizontal, bar.Color, bar.LineStyle.Width = true, shade, 0
			if below != nil {
				bar.StackOn(below)
			}
			below = bar
			chart.Add(bar)
			thumbnail = bar
		}
		if len(p.pieces) > 1 {
			chart.Legend.Add(part.name, thumbnail)
		}
	}
	return nil
}

func addRanges(chart *plot.Plot, p bars) error {
	points := make(plotter.XYs, len(p.names))
	ranges := make(plotter.XErrors, len(p.names))
	for i := range p.names {
		n := len(p.names) - 1 - i
		points[n] = plotter.XY{X: p.pieces[0].values[i], Y: float64(n)}
		ranges[n].Low, ranges[n].High = points[n].X-p.low[i], p.high[i]-points[n].X
	}
	marks, err := plotter.NewXErrorBars(struct {
		plotter.XYs
		plotter.XErrors
	}{points, ranges})
	if err == nil {
		chart.Add(marks)
	}
	return err
}
