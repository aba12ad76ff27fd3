
-- Budgets.

-- The number of the window that `at_ms` lies in, and when it ends. Days are counted from 1970-01-01, months as
-- year x 12 + month - 1 (https://howardhinnant.github.io/date_algorithms.html).
local function window_at(kind, at_ms)
  local day = floor(at_ms / 86400000)
  if kind == 2 then
    return day, (day + 1) * 86400000
  end
  local shifted = day + 719468
  local era = floor(shifted / 146097)
  local doe = shifted - era * 146097
  local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))
  local month = floor((5 * doy + 2) / 153) -- March is 0; the year begins with it
  local next_start
  if month == 11 then -- February: the year of this calendar ends with it
    local year = yoe + era * 400 + 1
    local next_era = floor(year / 400)
    local next_yoe = year - next_era * 400
    next_start = next_era * 146097 + next_yoe * 365 + floor(next_yoe / 4) - floor(next_yoe / 100)
  else
    next_start = shifted - doy + floor((153 * (month + 1) + 2) / 5)
  end
  return (yoe + era * 400) * 12 + month + 2, (next_start - 719468) * 86400000
end

-- A budget with the window of `period` first: window, used, other window, other used.
local function budget_at(raw, period)
  if not raw then
    return period * 1024, 0, -1, 0
  end
  local window, used, other, other_used = unpacked(raw)
  if floor(window / 1024) == period then
    return window, used, other, other_used
  elseif floor(other / 1024) == period then
    return other, other_used, window, used
  elseif window > other then
    return period * 1024, 0, window, used
  end
  return period * 1024, 0, other, other_used
end
