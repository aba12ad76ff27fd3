
-- How long until `tokens` more have been refilled, in milliseconds.
local function refill_ms(tokens, at, rest, amount, period)
  if tokens <= 0 then
    return 0
  end
  local wait = ceil((tokens * period - rest) / amount)
  return at > now and wait + at - now or wait
end
