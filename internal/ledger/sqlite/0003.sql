-- Nothing ever used the rates. The receipts in the jobs' documents have them.

DROP TABLE rates;
