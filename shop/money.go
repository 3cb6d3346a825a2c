package shop

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Money is an amount in the minor unit of its currency (1250 USD are 12 dollars and 50 cents, 1250 KRW are 1,250 won), so
// that sums are exact. It is never a float, in JSON neither.
type Money struct {
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"` // ISO 4217
}

// maxAmount bounds a price and the total of an order: nine million orders of it still add up in 63 bits.
const maxAmount = 1_000_000_000_000

var errAmount = fmt.Errorf("amount beyond %d minor units", maxAmount)

// currencies are the active codes of ISO 4217 (list one, without funds and metals) by digits of their minor unit.
var currencies = minorDigits(map[int]string{
	0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF",
	3: "BHD IQD JOD KWD LYD OMR TND",
	2: "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC CUP " +
		"CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES " +
		"KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK " +
		"NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB " +
		"TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VES WST XCD YER ZAR ZMW",
})

func minorDigits(lists map[int]string) map[string]int {
	digits := map[string]int{}
	for n, codes := range lists {
		for code := range strings.FieldsSeq(codes) {
			digits[code] = n
		}
	}
	return digits
}

// Check reports an amount that is not positive or too large, or a currency that does not exist.
func (m Money) Check() error {
	if _, ok := currencies[m.Currency]; !ok {
		return fmt.Errorf("currency %q is not an ISO 4217 code", m.Currency)
	}
	if m.Amount <= 0 {
		return errors.New("amount is not positive")
	}
	if m.Amount > maxAmount {
		return errAmount
	}
	return nil
}

// Times returns n times m, for 0 ≤ n.
func (m Money) Times(n int64) (Money, error) {
	if m.Amount != 0 && n > maxAmount/m.Amount {
		return Money{}, errAmount
	}
	return Money{m.Amount * n, m.Currency}, nil
}

// Plus returns the sum of two amounts of one currency. The zero Money fits every currency.
func (m Money) Plus(o Money) (Money, error) {
	switch {
	case m == Money{}:
		return o, nil
	case m.Currency != o.Currency:
		return Money{}, fmt.Errorf("%s and %s do not add up", m.Currency, o.Currency)
	case m.Amount+o.Amount > maxAmount:
		return Money{}, errAmount
	}
	return Money{m.Amount + o.Amount, m.Currency}, nil
}

// String writes the amount in the currency's major unit: "12.50 USD".
func (m Money) String() string {
	sign, digits := "", strconv.FormatInt(m.Amount, 10)
	if m.Amount < 0 {
		sign, digits = "-", digits[1:]
	}
	if n := currencies[m.Currency]; n > 0 {
		digits = strings.Repeat("0", max(0, n+1-len(digits))) + digits
		digits = digits[:len(digits)-n] + "." + digits[len(digits)-n:]
	}
	return sign + digits + " " + m.Currency
}
