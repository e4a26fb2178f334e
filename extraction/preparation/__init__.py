"""Files of answers as users have them: scales of columns, codes for missing values, wrong rows, columns that few queries vary."""
